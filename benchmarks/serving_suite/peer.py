"""What a server is to the measurements: how it is started, in which ways, and how it is asked."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import peer_environment

from .models import Body, Model, as_rows

OURS = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))
LOW_PORTS = (20_000, 32_000)
RUNTIME = ("onnxruntime==1.31.1", "numpy")
PRINT_VERSIONS = (
    "import sys; from importlib.metadata import version; print(*[f'{n}=={version(n)}' for n in sys.argv[1:]])"
)


@dataclass(frozen=True)
class Way:
    """One way to run a server, of those that are tried to find its best."""

    workers: int = 1
    batch: int = 1  # where a server takes one

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return f"{workers}, batches of {self.batch}" if self.batch > 1 else workers


@dataclass(frozen=True)
class Place:
    """What a server is started with."""

    binaries: Path  # where its commands lie
    port: int
    way: Way
    folder: Path  # its own
    model: Model


def nothing(place: Place) -> None:
    """Do nothing: most servers have their model once they listen."""


@dataclass(frozen=True)
class Peer:
    """A server. Without requirements it runs in our own environment."""

    name: str
    requirements: tuple[str, ...]
    command: Callable[[Place], Sequence[str]]
    path: Callable[[Model], str]
    body: Body = as_rows
    ways: tuple[Way, ...] = (Way(1), Way(2))
    prepare: Callable[[Place], None] = nothing  # once it listens
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # commands on PATH
    packages: tuple[str, ...] = field(default=("onnxruntime",))  # whose versions are noted
    with_torch: bool = False
    can_pause: bool = True  # without learning something from the pause that is not so

    @property
    def key(self) -> str:
        """The name on a command line and of its environment."""
        return self.name.lower().replace(" ", "-")

    def environment(self) -> Path:
        """Return where its commands lie, made if they are not there yet."""
        if not self.requirements:
            return OURS
        return peer_environment(self.key, *self.requirements, with_torch=self.with_torch)

    def versions(self) -> dict[str, str]:
        """Return what it runs on."""
        command = [str(self.environment() / "python"), "-c", PRINT_VERSIONS, *self.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(one.split("==") for one in done.stdout.split())


def low_port() -> int:
    """Return a port that nobody has, below those that the kernel gives out: some take no other."""
    while True:
        port = random.randrange(*LOW_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
