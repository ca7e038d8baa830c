"""The first process of a container that the platform starts with bash, as SDK v3 does.

The kernel drops a signal that the first process of a container does not handle, and bash handles none: SIGTERM would
reach nobody. So this process takes bash's place and has bash for a child. Signals pass over the shells and drivers,
which would die of them, to the processes that train.
"""

import logging
import os
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from mooring.contract.environment import LEADERS_VARIABLE
from mooring.runner.parentage import adopt_orphans, end_children, kill_children

from .failure import exit_code
from .plan import DEFAULT_GRACE_S, GRACE_VARIABLE, seconds
from .signal_pipe import SignalPipe, hold_signals
from .supervisor import LEFTOVER_S

logger = logging.getLogger(__name__)

SHELLS = ("bash", "sh", "dash")
DRIVERS = "/sm_drivers/"
KILL_AGAIN_S = 0.05


def supervise(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code, with signals passed on, orphans reaped, and nothing left.

    Raises `SettingError` for a variable that cannot be used.
    """
    hold_signals()
    grace = seconds(variables, GRACE_VARIABLE, DEFAULT_GRACE_S)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mooring-"))
        except OSError as error:
            # A container may have no place to write; what it was started for may not need one.
            logger.warning("no temporary folder, so nobody can ask to be signalled: %s", error)
            return FirstProcess(None, grace).run(command, variables)
        return FirstProcess(Path(folder), grace).run(command, {**variables, LEADERS_VARIABLE: folder})


class FirstProcess:
    """One command, and the processes below it. Those that a `StopRequest` listens in have a file in `leaders`."""

    def __init__(self, leaders: Path | None, grace_seconds: float) -> None:
        self._leaders = leaders
        self._grace_seconds = grace_seconds
        self._child = 0
        self._status: int | None = None
        self._deadline: float | None = None

    def run(self, command: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run it."""
        with selectors.DefaultSelector() as selector, SignalPipe(selector, self._on_signal):
            adopt_orphans()
            program = shutil.which(command[0], path=variables.get("PATH")) or command[0]
            self._child = os.posix_spawn(program, list(command), dict(variables))
            while self._status is None:
                for key, _ in selector.select(self._time_left()):
                    key.data()
                if self._time_left() == 0:
                    self._deadline = time.monotonic() + KILL_AGAIN_S
                    kill_children()
            end_children(LEFTOVER_S)
        return exit_code(self._status)

    def _time_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif self._deadline is None:
            self._deadline = time.monotonic() + self._grace_seconds
            leaders = self._listening() or list(_workers(self._child)) or [self._child]
            name = signal.Signals(number).name
            logger.info("%s: passed on to %s", name, ", ".join(str(pid) for pid in leaders))
            for pid in leaders:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        else:
            logger.warning("%s again: ending now", signal.Signals(number).name)
            self._deadline = time.monotonic()

    def _listening(self) -> list[int]:
        files = self._leaders.iterdir() if self._leaders is not None else ()
        return [int(file.name) for file in files if Path("/proc", file.name).exists()]

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self._child:
                    self._status = ended[1]


def _workers(pid: int) -> Iterator[int]:
    """Yield the topmost processes, from `pid` down, that are neither shells nor the SDK's drivers."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
        if Path(words[0]).name not in SHELLS and not any(DRIVERS in word for word in words):
            yield pid
            return
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text("ascii").split():
                yield from _workers(int(child))
