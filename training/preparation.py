"""Work that comes before the ranks, in a child process, so that a stop does not have to wait for it."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mooring.contract.errors import MooringError

from .failure import exit_code
from .signal_pipe import HEARD, STOP_SIGNALS, release_signals


class PreparationError(MooringError):
    """The work failed; the message is what the child had to say."""


class StoppedError(Exception):
    """A stop was asked for before the work was done."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def run_apart(work: Callable[[], None]) -> None:
    """Do something in a child, while signals are held. Raises `PreparationError`, or `StoppedError` at a stop."""
    with tempfile.NamedTemporaryFile(prefix="mooring-", mode="r", encoding="utf-8") as message:
        child = os.fork()
        if child == 0:
            _do(work, Path(message.name))
        status = _wait(child)
        if status != 0:
            text = message.read() or f"preparing the code ended with exit code {exit_code(status)}"
            raise PreparationError(text)


def _do(work: Callable[[], None], message: Path) -> None:
    """In the child: work, leave a message if it fails, and never return."""
    status = 1
    try:
        os.setsid()
        release_signals()
        work()
        status = 0
    except (MooringError, OSError) as error:
        message.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int:
    """Return the child's wait status. Raises `StoppedError` after ending it, if a stop comes first."""
    while True:
        number = signal.sigwait(HEARD)
        if number in STOP_SIGNALS:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise StoppedError(number)
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                return status
            if pid == 0:
                break
