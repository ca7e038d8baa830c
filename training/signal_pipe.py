"""Signals as events of a selector: delivered one by one, in order, outside of any other work."""

import selectors
import signal
import socket
from collections.abc import Callable
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HEARD = (*STOP_SIGNALS, signal.SIGCHLD)


def hold_signals() -> None:
    """Let signals wait until somebody asks for them. A first process gets only those that it handles or holds."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def release_signals() -> None:
    """Let signals come as they do, those that have waited first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


class SignalPipe:
    """Hears the stop signals and SIGCHLD while its `with` block runs, those included that were held back before."""

    def __init__(self, selector: selectors.BaseSelector, on_signal: Callable[[int], None]) -> None:
        self._selector = selector
        self._on_signal = on_signal

    def __enter__(self) -> None:
        self._ours, self._kernels = socket.socketpair()
        self._ours.setblocking(False)
        self._kernels.setblocking(False)
        self._before = {number: signal.signal(number, _hear) for number in HEARD}
        self._fd_before = signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._ours, selectors.EVENT_READ, self._read)
        release_signals()  # they were held back since the start, see launcher.py

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._ours.close()
        self._kernels.close()

    def _read(self) -> None:
        for number in self._ours.recv(1 << 12):
            self._on_signal(number)


def _hear(_number: int, _frame: FrameType | None) -> None:
    """Let the wakeup descriptor do the work."""
