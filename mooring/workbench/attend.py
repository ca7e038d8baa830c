"""Containers attended to in the foreground: what ends one, what a signal does, what the exit code is."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

from mooring.runner.process_runner import RunningProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_SECONDS = 0.05


class StopSignals:
    """Counts SIGINT and SIGTERM: the first asks containers to stop, the second kills them."""

    def __init__(self) -> None:
        self.count = 0
        self._came = threading.Event()

    def pause(self) -> None:
        """Wait a moment, less if a signal comes."""
        self._came.wait(POLL_SECONDS)
        self._came.clear()

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Hear of one; called by the interpreter."""
        self.count += 1
        self._came.set()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Take SIGINT and SIGTERM for as long as the block lasts."""
    taken = StopSignals()
    before = {number: signal.signal(number, taken) for number in SIGNALS}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def attend(
    containers: Sequence[RunningProcess],
    signals: StopSignals,
    grace_seconds: float,
    say: Callable[[str], object],
) -> int:
    """Wait until all containers have ended, and return the exit code: of the one that failed first, 0 if none did.

    A signal, or one that fails, stops all: SIGTERM, the grace, SIGKILL. A second signal kills at once.
    """
    failed: int | None = None
    is_stopping = is_killed = False
    with ThreadPoolExecutor(max_workers=len(containers)) as pool:
        while any(container.poll() is None for container in containers):
            signals.pause()
            failed = failed or next((code for each in containers if (code := each.poll())), None)
            if (signals.count or failed) and not is_stopping:
                is_stopping = True
                say(f"Stopping: SIGTERM now, SIGKILL after {grace_seconds:g} s; another Ctrl-C kills at once.\n")
                for container in containers:
                    if container.poll() is None:
                        pool.submit(container.stop, grace_seconds)
            if signals.count > 1 and not is_killed:
                is_killed = True
                for container in containers:
                    container.kill()
    codes = [container.wait() for container in containers]
    return as_shells_do(failed or next(filter(None, codes), 0))


def as_shells_do(code: int) -> int:
    """Return an exit code with death by signal n as 128 + n, as Docker and shells have it.

    >>> as_shells_do(-9), as_shells_do(3)
    (137, 3)
    """
    return 128 - code if code < 0 else code
