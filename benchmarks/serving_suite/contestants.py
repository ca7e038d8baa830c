"""Those that take turns in a row of throughput: servers that run, and onnxruntime alone."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .models import Model, content_type
from .peer import CORES, Peer, Way
from .running import Server, serving

SCRIPT = Path(__file__).with_name("post.lua")
# What a run may take beyond its seconds: starting, and answering what is under way.
PATIENCE_S = 60.0
Cell = dict[str, float]


class Contestant(Protocol):
    """What can be asked by so many clients for so many seconds."""

    def ask(self, clients: int, seconds: float) -> Cell:
        """Return requests/s, p50 and p99 in milliseconds, and errors."""


@dataclass(frozen=True)
class AskedServer:
    """A server that is asked over HTTP, and stands still in between."""

    server: Server
    body: Path

    def ask(self, clients: int, seconds: float) -> Cell:
        """Send requests from so many connections."""
        model, url = self.server.model, self.server.url
        with self.server.moving():
            if model.fills_cores:
                return closed_loop(url, self.body, content_type(model), clients, seconds)
            return wrk(url, self.body, content_type(model), clients, seconds)


@dataclass(frozen=True)
class BareLoop:
    """onnxruntime called by threads that have nothing else to do. One client is one caller, with all cores."""

    model: Model
    rows: Path
    way: Way  # callers when there are several clients; rows per call

    def ask(self, clients: int, seconds: float) -> Cell:
        """Call without a pause. A batch is of no more rows than there are clients."""
        callers = min(clients, self.way.workers)
        numbers = map(str, (seconds, callers, max(1, CORES // callers), min(clients, self.way.batch)))
        return _measured([*_module("bare_loop"), str(self.model.file), str(self.rows), *numbers], seconds, {})


def wrk(
    url: str, body: Path, kind: str, clients: int, seconds: float, *, threads: int = 1, before: Sequence[str] = ()
) -> Cell:
    """Send requests from so many connections without a pause; the body is of that content type."""
    whole = f"-d{math.ceil(seconds)}s"  # it takes no part of a second
    command = [*before, "wrk", f"-t{threads}", f"-c{clients}", whole, "--timeout", "20s", "-s", str(SCRIPT), url]
    return _measured(command, seconds, {"BODY_FILE": str(body), "CONTENT_TYPE": kind})


def closed_loop(url: str, body: Path, kind: str, clients: int, seconds: float) -> Cell:
    """Ask with so many clients, each of which waits for its answer; the body is of that content type."""
    return _measured([*_module("closed_loop"), url, str(body), kind, str(clients), str(seconds)], seconds, {})


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.serving_suite.{name}"]


def _measured(command: Sequence[str], seconds: float, told: dict[str, str]) -> Cell:
    done = subprocess.run(
        command, env=os.environ | told, capture_output=True, text=True, check=True, timeout=seconds + PATIENCE_S
    )
    found: Cell = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@dataclass(frozen=True)
class Entry:
    """Somebody's place in a row: its name there, the ways in which it can be run, and how to begin one."""

    name: str
    ways: tuple[Way, ...]
    peer: Peer | None = None  # none: onnxruntime alone

    @contextmanager
    def begun(self, model: Model, way: Way) -> Iterator[Contestant]:
        """Run it for the length of the block."""
        with tempfile.TemporaryDirectory() as folder:
            if self.peer is None:
                np.save(Path(folder) / "rows.npy", model.rows)
                yield BareLoop(model, Path(folder) / "rows.npy", way)
                return
            body = Path(folder) / "body"
            body.write_bytes(self.peer.body(model))
            with serving(self.peer, model, way) as server:
                yield AskedServer(server, body)
