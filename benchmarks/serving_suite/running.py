"""Servers that run: started until they answer rightly, standing still unless asked, and ended with all they started."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from .models import Model, content_type
from .peer import Peer, Place, Way, low_port
from .starts import variables

START_S = 120.0
END_S = 10.0
# What servers say of a model that is on its way, once they listen; MLServer says it with 400.
LOADING = (404, 503)
NOT_READY = "not ready yet"
LAST_LOG = 400


class DidNotStartError(Exception):
    """A server does not answer as it should."""

    def __init__(self, answer: str, log: str) -> None:
        super().__init__(f"answered {answer}; its log ends: {log}")


@dataclass(frozen=True)
class Group:
    """A process and all that came of it. It stands still unless asked: some spin while they have nothing to do."""

    process: "subprocess.Popen[bytes]"

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Let it run for the length of the block."""
        self.send(signal.SIGCONT)
        try:
            yield
        finally:
            self.send(signal.SIGSTOP)

    def send(self, number: int) -> None:
        """Send a signal to all of it."""
        members = self.members()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        for member in members:
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getpgid(member.pid) != self.process.pid:
                    member.send_signal(number)

    def members(self) -> list[psutil.Process]:
        """Return its processes."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Ask all of it to end, then make it."""
        members = self.members()
        self.send(signal.SIGCONT)
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        _, alive = psutil.wait_procs(members, timeout=1)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()


@contextmanager
def group(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> Iterator[Group]:
    """Run a command for the length of the block, its output in `folder/log`."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Group(process)
    try:
        yield found
    finally:
        found.end()


@dataclass(frozen=True)
class Server:
    """A peer that has answered rightly, and how it is asked."""

    peer: Peer
    model: Model
    port: int
    group: Group

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.port}{self.peer.path(self.model)}"

    def moving(self) -> AbstractContextManager[None]:
        """Let it run for the length of the block; in between it stands still, if it can."""
        return self.group.moving() if self.peer.can_pause else nullcontext()


@contextmanager
def serving(peer: Peer, model: Model, way: Way, pause_s: float = 0.1) -> Iterator[Server]:
    """Run a peer for the length of the block, once it has answered rightly. Raises `DidNotStartError`."""
    with folder_of(peer.key) as folder:
        place = Place(peer.environment(), low_port(), way, folder, model)
        command = peer.command(place)
        with group(command, {**variables(place), **peer.variables}, folder) as found:
            server = Server(peer, model, place.port, found)
            _wait_until_it_listens(server, folder / "log", pause_s)
            peer.prepare(place)
            _wait_for_the_right_answer(server, folder / "log", pause_s)
            yield server


@contextmanager
def folder_of(name: str) -> Iterator[Path]:
    """Give a folder with a short path, gone at the end: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name[:8]}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_listens(server: Server, log: Path, pause_s: float) -> None:
    for _ in _until_it_has_ended(server, pause_s):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return
    raise DidNotStartError("nothing", end_of(log))


def _wait_for_the_right_answer(server: Server, log: Path, pause_s: float) -> None:
    body, answer = server.peer.body(server.model), "nothing"
    headers = {"content-type": content_type(server.model)}
    for _ in _until_it_has_ended(server, pause_s):
        with suppress(httpx.TransportError):
            response = httpx.post(server.url, content=body, headers=headers, timeout=START_S)
            answer = f"{response.status_code} {response.text[:200]}"
            if response.status_code == 200:
                if server.model.is_answered_by(response.content):
                    return
                break
            if response.status_code not in LOADING and NOT_READY not in answer:
                break
    raise DidNotStartError(answer, end_of(log))


def _until_it_has_ended(server: Server, pause_s: float) -> Iterable[None]:
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and server.group.process.poll() is None:
        yield
        time.sleep(pause_s)


def end_of(log: Path) -> str:
    """Return the last lines of a log, in one."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-6:])[-LAST_LOG:]
