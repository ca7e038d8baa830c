"""The agent: imports torch once, forks the ranks of this host, restarts them if it may, and tells the supervisor.

It starts no thread and touches no GPU, so that what it forks begins clean. Called as `python -m mooring.training.agent
FD`, with the other end of FD, a stream of JSON lines, in the supervisor's hands.
"""

import gc
import importlib
import importlib.util
import json
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mooring.contract.environment import LOG_FORMAT, process_variables
from mooring.runner.parentage import die_with, fork_beside_threads

from . import script
from .algorithm import program_of
from .entry_point import Command, EntryPoint, Function, Module, Script
from .failure import error_file, exit_code
from .rendezvous import MeetingError, Rendezvous
from .stacks import offer_stack, stack_file

# How soon a failure on another host is noticed here.
POLL_S = 0.5
# A word in a script, and the module that ranks will then import within their first step, at a second or two each.
IMPORTED_FOR = {
    b"optim": "torch._dynamo",
    b"Checkpointer": "mooring.training.checkpoint",
    b"transformers": "transformers.models.auto.modeling_auto",
}


@dataclass(frozen=True)
class RankOrder:
    """One rank to be started, with the write ends of its pipes."""

    rank: int
    variables: dict[str, str]
    stdout: int
    stderr: int


def main() -> int:
    """Run the ranks that the supervisor orders. In a forked rank this returns the script's own exit code."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with(os.getppid())
    # A terminal's Ctrl-C goes to the whole group, and PID 1's forwarding to ranks is the supervisor's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with control.makefile("rb", buffering=0) as stream:
        order = json.loads(stream.readline())
    entry_point = _entry_point(order)
    _show_log()
    _import_once(entry_point)
    gc.collect()
    gc.freeze()  # so that no rank's collector touches, and so copies, what it shares with the others
    agent = Agent(control, order)
    try:
        rank = agent.run()
    except MeetingError as error:
        agent.send({"problem": str(error)})
        return 1
    if rank is None:
        return 0
    folder = Path(order["folder"])
    if not isinstance(entry_point, Command):
        offer_stack(stack_file(folder, rank.rank))
    return script.run(entry_point, tuple(order["arguments"]), error_file(folder, rank.rank, agent.attempt))


def _show_log() -> None:
    """Let ranks see what our library says, such as where a run resumes, unless their script sets up logging itself."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    handler.addFilter(lambda _: not logging.getLogger().handlers)
    ours = logging.getLogger("mooring")
    ours.addHandler(handler)
    ours.setLevel(int(process_variables()["SM_LOG_LEVEL"]))


def _import_once(entry_point: EntryPoint) -> None:
    """Import what every rank would import, as far as that can be told without running anything."""
    if isinstance(entry_point, Command) or importlib.util.find_spec("torch") is None:
        return  # one rank may do without torch, and so may an image that trains with something else
    importlib.import_module("torch.distributed")
    source = _source(entry_point)
    for word, module in IMPORTED_FOR.items():
        if word in source:
            with suppress(ImportError):  # the word may be in a comment only
                importlib.import_module(module)


def _source(entry_point: EntryPoint) -> bytes:
    """Return the text of a script, or of a program of ours; finding a user's module could run the user's code."""
    path = entry_point.path if isinstance(entry_point, Script) else None
    if isinstance(entry_point, Module) and program_of(entry_point.name):
        spec = importlib.util.find_spec(entry_point.name)
        path = Path(spec.origin) if spec and spec.origin else None
    return path.read_bytes() if path and path.is_file() else b""


class Agent:
    """The ranks of this host, through one attempt or several."""

    def __init__(self, control: socket.socket, order: dict[str, Any]) -> None:
        self._control = control
        self._order = order
        self._pid = os.getpid()
        self.attempt = 0
        self._ranks = [RankOrder(**fields) for fields in order["ranks"]]
        self._rendezvous = Rendezvous(order["hosts"], order["host"], order["port"], order["join_seconds"])
        self._running: dict[int, int] = {}  # pid -> rank
        self._attempts_left = int(order["max_restarts"])
        self._bell, bell_end = socket.socketpair()
        self._bell.setblocking(False)
        bell_end.setblocking(False)
        self._bell_end = bell_end

    def send(self, message: dict[str, Any]) -> None:
        """Tell the supervisor something."""
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def run(self) -> RankOrder | None:
        """Run attempts until one succeeds or none is left. Returns the rank's order in a rank, None in the agent.

        Raises `MeetingError` if the hosts do not come together.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._bell_end.fileno(), warn_on_full_buffer=False)
        if self._order["is_distributed"]:
            self._rendezvous.open()
        while True:
            port = self._rendezvous.join(self.attempt) if self._order["is_distributed"] else None
            rank = self._fork(port)
            if rank is not None:
                return rank
            if not self._watch():
                self._rendezvous.leave()
                return None
            self.attempt += 1

    # --- starting ---------------------------------------------------------------------------------------------------

    def _fork(self, port: int | None) -> RankOrder | None:
        """Fork all ranks; returns the rank's order in a rank, None in the agent."""
        for rank in self._ranks:
            pid = fork_beside_threads()
            if pid == 0:
                self._become(rank, port)
                return rank
            self._running[pid] = rank.rank
        self.send({"attempt": self.attempt, "pids": {rank: pid for pid, rank in self._running.items()}})
        return None

    def _become(self, rank: RankOrder, port: int | None) -> None:
        """In the child: a group, streams, variables and signals of its own."""
        os.setsid()
        die_with(self._pid)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(rank.stdout, 1)
        os.dup2(rank.stderr, 2)
        for other in self._ranks:
            os.close(other.stdout)
            os.close(other.stderr)
        for ours in (self._control, self._bell, self._bell_end):
            ours.close()
        os.environ.update(rank.variables)
        if port is not None:
            os.environ["MASTER_PORT"] = str(port)
            os.environ["TORCHELASTIC_RESTART_COUNT"] = str(self.attempt)
        if directory := self._order["directory"]:
            os.chdir(directory)
            sys.path.insert(0, directory)

    # --- watching ---------------------------------------------------------------------------------------------------

    def _watch(self) -> bool:
        """Wait until the ranks have ended; returns whether they are to be started again.

        While a restart is possible a failure is ours to deal with; otherwise each end is reported as it comes.
        """
        has_told = False
        while self._running:
            select.select([self._bell, self._control], [], [], POLL_S if len(self._order["hosts"]) > 1 else None)
            self._listen()
            for rank, status in self._reap():
                if status != 0 and not has_told:
                    has_told = True
                    self._rendezvous.tell_failure(self.attempt, f"rank {rank} on {self._order['host']}")
                    if self._attempts_left > 0:
                        return self._restart(f"rank {rank} ended with exit code {exit_code(status)}")
                self.send({"rank": rank, "status": status})
            if not has_told and (who := self._rendezvous.failure_elsewhere(self.attempt)):
                has_told = True
                if self._attempts_left > 0:
                    return self._restart(f"{who} failed")
                self.send({"elsewhere": who})
        return False

    def _restart(self, why: str) -> bool:
        """Kill what runs of an attempt: its ranks wait for one that is gone, and their state is in checkpoints."""
        self._attempts_left -= 1
        self.send({"restart": self.attempt + 1, "why": why})
        for pid in self._running:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        while self._running:
            pid, _ = os.waitpid(-1, 0)
            self._running.pop(pid, None)
        return True

    def _listen(self) -> None:
        """Hear from the supervisor that the run is to end, so that nothing is started any more."""
        with suppress(BlockingIOError):
            self._bell.recv(1 << 12)
        if select.select([self._control], [], [], 0)[0]:
            self._control.recv(1 << 12)  # it says one thing only
            self._attempts_left = 0

    def _reap(self) -> list[tuple[int, int]]:
        """Return the ranks that have ended, with their wait statuses."""
        ended = []
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in self._running:
                ended.append((self._running.pop(pid), status))
        return ended


def _entry_point(order: dict[str, Any]) -> EntryPoint:
    kind, value = order["entry_point"]
    if kind == "script":
        return Script(Path(value))
    if kind == "function":
        return Function(*value)
    return Module(value) if kind == "module" else Command(tuple(value))


if __name__ == "__main__":
    sys.exit(main())
