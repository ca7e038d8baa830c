"""Facts about an image that need no server and no job: what Docker knows of it, and what a shell in it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mooring.runner.docker import DOCKER, DockerError, ask
from mooring.runner.image import inspect_image

MULTI_MODELS = "com.amazonaws.sagemaker.capabilities.multi-models"
BIND_TO_PORT = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
# Programs that take the first word after the image's name for themselves.
INITS = ("tini", "docker-init", "dumb-init")
SHELLS = ("sh", "bash", "dash")
TITLE = "org.opencontainers.image.title"
COMMANDS = ("train", "serve", "bash", "chmod", "python3", "python", "pip", "torchrun", "mooring")
# A line for each command that is on PATH, and each file of NVIDIA's driver where a base image would have it.
PROBE = f"""\
for name in {" ".join(COMMANDS)}; do command -v "$name" >/dev/null && echo "command $name"; done
for file in /usr/lib/*/libcuda.so.* /usr/lib64/libcuda.so.* /usr/lib/*/libnvidia-ml.so.*; do
    test -e "$file" && echo "driver $file"
done
echo shell sh
"""


def is_promised(labels: Mapping[str, str], name: str) -> bool:
    """Whether the label of a capability says true."""
    return labels.get(name, "").lower() == "true"


def shell_of(entrypoint: Sequence[str]) -> str | None:
    """Return the shell that an ENTRYPOINT's words are given to as one string, None if it is in exec form."""
    name = _program(entrypoint)
    return name if name in SHELLS and "-c" in entrypoint else None


def init_of(entrypoint: Sequence[str]) -> str | None:
    """Return the init that an ENTRYPOINT begins with, None if it names the program itself."""
    name = _program(entrypoint)
    return name if name in INITS else None


def _program(entrypoint: Sequence[str]) -> str:
    return entrypoint[0].rpartition("/")[2] if entrypoint else ""


@dataclass(frozen=True)
class ImageTraits:
    """An image as it lies there. Without a shell in it nobody knows its commands."""

    size_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    commands: frozenset[str] = frozenset()
    drivers: tuple[str, ...] = ()
    has_shell: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it has Mooring in it, and so serves and trains what Mooring does."""
        return self.labels.get(TITLE) == "Mooring" or "mooring" in self.commands

    def has_label(self, name: str) -> bool:
        """Whether a capability's label says true."""
        return is_promised(self.labels, name)


# The installed package, run as processes of this machine.
INSTALLED = ImageTraits(labels={MULTI_MODELS: "true", BIND_TO_PORT: "true"}, commands=frozenset(COMMANDS))


def read_image(image: str, on_line: Callable[[str], object]) -> ImageTraits:
    """Return an image's facts, pulling it if it is not here. Raises `DockerNotFoundError`, `DockerError`."""
    try:
        known = inspect_image(image)
    except DockerError as error:
        if "no such image" not in error.said.lower():
            raise
        on_line(f"{image} is not on this machine; pulling it.\n")
        ask([DOCKER, "pull", image], on_line)
        known = inspect_image(image)
    found = _probed(image)
    return ImageTraits(
        known.size_bytes,
        known.labels,
        known.entrypoint,
        frozenset(found.get("command", ())),
        tuple(found.get("driver", ())),
        has_shell="shell" in found,
    )


def _probed(image: str) -> dict[str, list[str]]:
    try:
        said = ask([DOCKER, "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", PROBE])
    except DockerError:  # an image without a shell is an image all the same
        return {}
    found: dict[str, list[str]] = {}
    for kind, _, what in (line.partition(" ") for line in said.splitlines()):
        found.setdefault(kind, []).append(what)
    return found
