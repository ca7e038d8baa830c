"""Images: which Dockerfile is meant, and what Docker is asked. Planned as a value, performed by one line elsewhere."""

import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring import __version__
from mooring.contract.errors import MooringError
from mooring.runner.docker import DOCKER

from .project import suggested_name

DEVICES = ("cpu", "gpu")
# The first is what a Dockerfile of ours makes where no stage is named, and trains and serves; the others only serve.
TARGETS = ("training", "inference", "inference-mms")
CONSTRAINTS = Path("docker/requirements/constraints.txt")
BASE_ARGUMENT = "BASE_IMAGE"


class NoDockerfileError(MooringError):
    """A folder is neither a project nor the source of our images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"{folder} has no Dockerfile, and no Dockerfile.cpu with {CONSTRAINTS}. The images are built from a "
            "checkout of Mooring or from its source distribution, which holds both: "
            f"`pip download --no-deps --no-binary mooring mooring=={__version__}`, unpack it, name it with --source. "
            "For a project of your own, `mooring init` writes a Dockerfile."
        )


@dataclass(frozen=True)
class BuildPlan:
    """An image to build. `base` is the image it starts from, where that is one of ours."""

    command: tuple[str, ...]
    tag: str
    base: str | None


def image_name(device: str, target: str) -> str:
    """Return what an image of ours is called.

    >>> image_name("cpu", "training"), image_name("gpu", "inference")
    ('mooring:cpu', 'mooring:gpu-inference')
    """
    return f"mooring:{device}" + ("" if target == TARGETS[0] else f"-{target}")


def plan_build(source: Path, device: str, target: str, tag: str | None, extra: Sequence[str]) -> BuildPlan:
    """Return what Docker is asked to build the images of a source, or the project in it. Raises `NoDockerfileError`."""
    name = image_name(device, target)
    ours = source / f"Dockerfile.{device}"
    if ours.is_file() and (source / CONSTRAINTS).is_file():
        stage = ("--file", str(ours), "--target", target, *_facts(source))
        return BuildPlan(_command(tag or name, stage, extra, source), tag or name, base=None)
    project = source / "Dockerfile"
    if not project.is_file():
        raise NoDockerfileError(source)
    tag = tag or suggested_name(source)
    has_choice = f"ARG {BASE_ARGUMENT}" in project.read_text(encoding="utf-8")
    options = ("--build-arg", f"{BASE_ARGUMENT}={name}") if has_choice else ()
    is_named = any(word.partition("=")[0] == BASE_ARGUMENT for word in extra)
    return BuildPlan(_command(tag, options, extra, source), tag, base=name if has_choice and not is_named else None)


def _facts(source: Path) -> list[str]:
    """Return the build arguments by which an image of ours tells what it was built from."""
    version = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    told = ["--build-arg", f"VERSION={version}"]
    try:
        asked = ["git", "-C", str(source), "rev-parse", "HEAD"]
        revision = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # a source distribution
        return told
    return [*told, "--build-arg", f"REVISION={revision}"]


def _command(tag: str, options: Sequence[str], extra: Sequence[str], source: Path) -> tuple[str, ...]:
    # Of two build arguments of one name Docker takes the last, so what is given wins.
    return (DOCKER, "build", "--tag", tag, *options, *extra, str(source))
