"""FIFOs as the platform gives them in Pipe mode: one for each pass over a channel, opened one after the other.

A FIFO has one reader. It is closed when its end was read, or when nobody wants the rest of it; the platform makes the
next one then.
"""

import errno
import fcntl
import io
import logging
import os
import select
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.contract.errors import PlatformError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger(__name__)

# The kernel's own is 64 KiB, which a writer and a reader on other cores fill and empty too often.
PIPE_BYTES = 1 << 20
# How often to look for a FIFO that is not there yet, and to say what is waited for.
LOOK_MS = 50
TELL_S = 30.0


class PipeError(PlatformError):
    """A FIFO that cannot be read."""

    def __init__(self, fifo: Path, problem: str) -> None:
        self.fifo = fifo
        self.problem = problem
        super().__init__(f"{fifo}: {problem}.")


class PipeTimeoutError(PipeError):
    """A FIFO did not come, nobody wrote to it, or its writer fell silent."""


class Pipe(io.RawIOBase):
    """A FIFO being read, or waited for. Read it in one thread; `wake` and `check` are for another."""

    def __init__(self, fifo: Path, wait_s: float) -> None:
        super().__init__()
        self.before_waiting: Callable[[], None] = lambda: None  # called in the thread that reads
        self.fifo = fifo
        self._wait_s = wait_s
        self._told_at_s = 0.0
        self._descriptor = -1
        self._has_writer = False
        self._is_woken = False
        self._is_first = True
        self._closing = threading.Lock()
        self._bell, self._ringer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    # --- in the thread that reads -----------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, room: "WriteableBuffer") -> int:
        """Read what is in the FIFO; it is opened before the first byte, once it is there.

        The first read gives at least two bytes, if there are any: whoever peeks is to see what they are.
        """
        view = memoryview(room)
        got = self._read(view)
        if self._is_first and got == 1 < len(view):
            got += self._read(view[1:])
        self._is_first = False
        return got

    def _read(self, room: memoryview) -> int:
        while not self._is_woken:
            if self._has_writer:
                with suppress(BlockingIOError):
                    return os.readv(self._descriptor, [room])
            self.before_waiting()
            if self._descriptor < 0:
                self._open()
            self._wait()
        return 0

    def _open(self) -> None:
        """Open the FIFO if it is there. Without waiting for a writer: that wait could not be ended."""
        try:
            kind = self.fifo.stat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISFIFO(kind):
            raise PipeError(self.fifo, "is no FIFO, though the channel's input mode is Pipe")
        self._descriptor = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._claim()
        with suppress(OSError):  # over what this user may have in pipes
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _claim(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                return  # a file system without locks
            problem = "another process reads it; a FIFO has one reader, since what one reads the other never sees"
            raise PipeError(self.fifo, problem) from error

    def _wait(self) -> None:
        """Wait for bytes or the writer's end, for the FIFO to come, or to be woken."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self._descriptor < 0:
            poll.poll(LOOK_MS)
            return
        poll.register(self._descriptor, select.POLLIN)  # it hangs up when a writer has gone, not before one has come
        self._has_writer = any(descriptor == self._descriptor for descriptor, _ in poll.poll()) or self._has_writer

    # --- in the reader's --------------------------------------------------------------------------------------------

    def check(self, waited_s: float) -> None:
        """Say now and then what is waited for. Raises `PipeTimeoutError` when that has taken too long."""
        if waited_s >= self._wait_s:
            raise PipeTimeoutError(self.fifo, f"{self._state()} after {waited_s:,.0f} s{self._hint()}")
        if waited_s < self._told_at_s:
            self._told_at_s = 0.0  # another wait
        if waited_s - self._told_at_s >= (TELL_S if self._told_at_s else 1.0):
            self._told_at_s = waited_s
            logger.info("waiting for %s: %s", self.fifo, self._state())

    def _state(self) -> str:
        if self._descriptor < 0:
            return "it is not there"
        return "its writer sends nothing" if self._has_writer else "nobody has opened it to write"

    def _hint(self) -> str:
        if self._descriptor >= 0:
            return ""
        channel = self.fifo.name.rpartition("_")[0]
        others = sorted(path.name for path in self.fifo.parent.glob(f"{channel}*"))
        return f"; beside it there are: {', '.join(others) or 'none of the channel'}"

    def wake(self) -> None:
        """Let a read that waits, and every one after it, return as if at the end."""
        self._is_woken = True
        with self._closing:
            if not self.closed:
                os.write(self._ringer, b"!")

    def close(self) -> None:
        """Close the FIFO; a writer that still writes gets EPIPE. Either thread may, when nothing is being read."""
        with self._closing:
            if not self.closed:
                for descriptor in (self._descriptor, self._bell, self._ringer):
                    if descriptor >= 0:
                        os.close(descriptor)
            super().close()
