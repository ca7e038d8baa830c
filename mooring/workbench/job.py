"""A training job on this machine: the files that the platform would mount, one container per host, what they leave."""

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mooring.artifact.archive import pack_files
from mooring.artifact.contents import Contents
from mooring.artifact.publish import publish_file
from mooring.contract.errors import UserCodeError
from mooring.contract.paths import DEFAULT_BASE, ContainerPaths
from mooring.runner.container_spec import ContainerSpec, Mount
from mooring.runner.platform_files import write_training_inputs

GRACE_SECONDS = 120
PROGRAM = "train.py"


@dataclass(frozen=True)
class Limits:
    """What a container may use, as Docker's options have it."""

    cpus: float | None = None
    memory: str | None = None
    gpus: str | None = None


class NoProgramError(UserCodeError):
    """It is not clear which file of a code folder to run."""

    def __init__(self, code: Path) -> None:
        super().__init__(f"There is no {PROGRAM} in {code}. Name the script with --program.")


@dataclass(frozen=True)
class TrainingJob:
    """What a job is asked to do. Without an image it runs as processes, on one host."""

    channels: Mapping[str, Path]
    hyperparameters: Mapping[str, Any]
    code: Path | None = None
    program: str | None = None
    image: str = ""
    instances: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Path | None = None
    limits: Limits = field(default_factory=Limits)
    name: str = field(default_factory=lambda: f"mooring-{uuid.uuid4().hex[:8]}")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, named as the platform names them."""
        return tuple(f"algo-{number}" for number in range(1, self.instances + 1))

    @property
    def network(self) -> str | None:
        """The network that several hosts meet in."""
        return self.name if self.instances > 1 else None

    def prepare(self, folder: Path) -> list[ContainerSpec]:
        """Write what the platform would mount, a folder for each host, and return the containers to start.

        Raises `NoProgramError`, `UnfitFilesError`.
        """
        return [self._host(folder / host, host) for host in self.hosts]

    def _host(self, base: Path, host: str) -> ContainerSpec:
        paths = write_training_inputs(
            base,
            hyperparameters=self.hyperparameters,
            channels=dict.fromkeys(self.channels),
            hosts=self.hosts,
            current_host=host,
            seen_as=DEFAULT_BASE if self.image else None,
        )
        mounts = [Mount(f"input/data/{name}", source) for name, source in self.channels.items()]
        if self.checkpoints is not None:
            mounts.append(Mount("checkpoints", self.checkpoints, is_read_only=False))
        if self.code is None:
            paths.code.rmdir()  # so that the image's own is seen
        else:
            copy_contents(Contents.of(self.code), paths.code)
        return ContainerSpec(
            ("train",),
            base,
            {"TRAINING_JOB_NAME": self.name} | self._program() | dict(self.variables),
            tuple(mounts),
            cpus=self.limits.cpus,
            memory=self.limits.memory,
            gpus=self.limits.gpus,
            image=self.image,
            name=f"{self.name}-{host}",
            network=self.network,
            host=host,
        )

    def _program(self) -> dict[str, str]:
        named = {"SAGEMAKER_PROGRAM", "MOORING_ALGORITHM", "SAGEMAKER_TRAINING_MODULE"} & set(self.variables)
        if self.program is not None:
            return {"SAGEMAKER_PROGRAM": self.program}
        if named or self.code is None or "sagemaker_program" in self.hyperparameters:
            return {}
        if not (self.code / PROGRAM).is_file():
            raise NoProgramError(self.code)
        return {"SAGEMAKER_PROGRAM": PROGRAM}


def copy_contents(contents: Contents, folder: Path) -> None:
    """Copy files into a folder, links as what they name."""
    for name, path in contents.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)


def failures(specs: list[ContainerSpec]) -> dict[str, str]:
    """Return what hosts wrote of why they failed, by host."""
    files = {spec.host or "": ContainerPaths(spec.base).failure for spec in specs}
    return {host: file.read_text(encoding="utf-8", errors="replace") for host, file in files.items() if file.is_file()}


def collect(specs: list[ContainerSpec], output: Path) -> list[Path]:
    """Leave model.tar.gz, output.tar.gz and failure in a folder, as the platform would, and return what there is.

    All hosts' files are in one archive; of two with one name the last host's is kept. Raises `UnfitFilesError`.
    """
    left = []
    for name, place in (("model.tar.gz", "model"), ("output.tar.gz", "output/data")):
        files: dict[str, Path] = {}
        for spec in specs:
            files |= Contents.of(spec.base / place).files
        if files:
            pack_files(files, output / name)
            left.append(output / name)
    for reason in list(failures(specs).values())[:1]:
        with publish_file(output / "failure") as beside:
            beside.write_text(reason, encoding="utf-8")
        left.append(output / "failure")
    return left
