"""How far long work is: a line that changes on a terminal, a line now and then in a log."""

import time
from typing import TextIO

MEGABYTE = 1 << 20
TERMINAL_SECONDS = 0.2
LOG_SECONDS = 10.0


class Progress:
    """Tells of bytes done, of so many. Work that is over before the first line is due is not spoken of."""

    def __init__(self, stream: TextIO, what: str, total: int) -> None:
        self._stream = stream
        self._what = what
        self._total = total
        self._done = 0
        self._interval = TERMINAL_SECONDS if stream.isatty() else LOG_SECONDS
        self._next = time.monotonic() + self._interval
        self._has_line = False

    def __call__(self, count: int) -> None:
        """Hear of bytes that were done."""
        self._done += count
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._interval
        share = f"{self._what}: {self._done / MEGABYTE:,.0f} of {self._total / MEGABYTE:,.0f} MB"
        self._has_line = self._stream.isatty()
        self._stream.write(f"\r\033[K{share}" if self._has_line else f"{share}\n")
        self._stream.flush()

    def finish(self) -> None:
        """Leave the terminal's line to whoever writes next."""
        if self._has_line:
            self._stream.write("\r\033[K")
