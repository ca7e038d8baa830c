"""What an image is and what files it holds, learnt from Docker without running anything of it."""

import json
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .docker import DOCKER, DockerError, ask, last_words

# What a container that is never started would run: an image without a command of its own needs one to be made.
NEVER_RUN = "never-run"
# tarfile copies what is left of a piece with every header: larger ones cost more than they save.
PIECE_BYTES = 32 << 10


@dataclass(frozen=True)
class ImageFacts:
    """What Docker says of an image. `digests` are those of registries it was pushed to or pulled from."""

    name: str
    id: str
    created: str
    system: str
    architecture: str
    size_bytes: int
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    search_path: str = ""  # PATH, as it is set in a container


def inspect_image(name: str) -> ImageFacts:
    """Return what Docker says of an image. Raises `DockerNotFoundError`, `DockerError`."""
    # One line, the last: the docker command may have said something of its own before.
    line = last_words(ask([DOCKER, "image", "inspect", "--format", "{{json .}}", name]).splitlines())
    said: dict[str, Any] = json.loads(line)
    config = said.get("Config") or {}
    return ImageFacts(
        name=name,
        id=said["Id"],
        created=said.get("Created") or "",
        system=said.get("Os") or "",
        architecture=said.get("Architecture") or "",
        size_bytes=said.get("Size") or 0,
        digests=tuple(said.get("RepoDigests") or ()),
        labels=config.get("Labels") or {},
        entrypoint=tuple(config.get("Entrypoint") or ()),
        search_path=next((pair[5:] for pair in config.get("Env") or () if pair.startswith("PATH=")), ""),
    )


@contextmanager
def exported(image: str) -> Iterator[tarfile.TarFile]:
    """Give the files of an image as an archive that is read once, from front to back.

    Raises `DockerNotFoundError`, `DockerError`, also where Docker stopped before the end.
    """
    name = f"mooring-export-{uuid.uuid4().hex}"
    ask([DOCKER, "create", "--name", name, "--network", "none", image, NEVER_RUN])
    try:
        with _archive([DOCKER, "export", name]) as archive:
            yield archive
    finally:
        with suppress(DockerError):  # it was never started, so nothing but its name would be left
            ask([DOCKER, "rm", "--force", name])


@contextmanager
def _archive(command: list[str]) -> Iterator[tarfile.TarFile]:
    """Give what a command writes as an archive, which came whole if the block ends."""
    damage: tarfile.TarError | None = None
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|", bufsize=PIECE_BYTES) as archive:
                    yield archive
                while process.stdout.read(PIECE_BYTES):  # the padding at the end; a closed pipe would be a failure
                    pass
            except tarfile.TarError as error:
                damage = error
            except BaseException:  # nobody reads on: an interrupt, or whatever the reader raised
                process.kill()
                raise
        said.seek(0)
        words = last_words(said.read().decode(errors="replace").splitlines())
    if process.returncode or damage:
        raise DockerError(command, process.returncode, words or str(damage or "")) from damage
