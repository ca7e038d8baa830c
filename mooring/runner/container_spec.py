"""What to run, as a value: a container of ours by its command, its files, its variables and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """A folder of this machine, and the place below /opt/ml where a container sees it."""

    place: str
    source: Path
    is_read_only: bool = True


@dataclass(frozen=True)
class ContainerSpec:
    """One container. `base` is the folder whose folders it sees below /opt/ml; a process has no image or network."""

    command: tuple[str, ...]
    base: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    port: int | None = None  # where this machine reaches it
    cpus: float | None = None
    memory: str | None = None  # as Docker has it, such as 2g
    gpus: str | None = None
    image: str = ""
    name: str = ""
    network: str | None = None
    host: str | None = None  # its name for others of the network
    options: tuple[str, ...] = ()  # more of Docker's own; a process has none
