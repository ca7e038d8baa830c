"""How far a long read has come: a line in the log now and then, with rate and time left. The first rank's only."""

import logging
import time
from collections.abc import Callable
from math import inf

logger = logging.getLogger(__name__)

EVERY_S = 30.0
UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


class Progress:
    """Counts bytes read of a total, which may not be known. With `is_told` false it only counts."""

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        is_told: bool = True,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._total = total
        self._every_s = every_s if is_told else inf
        self._clock = clock
        self._begun = self._told = clock()
        self._done = 0

    def advance(self, size: int) -> None:
        """Count what was read, and tell if it is time to."""
        self._done += size
        now = self._clock()
        if now - self._told >= self._every_s:
            self._told = now
            logger.info("%s: %s", self._what, self.text(now))

    def text(self, now: float) -> str:
        """Say how far it is: `1.2 of 4.0 GB (30 %), 200 MB/s, 14 s left`."""
        rate = self._done / max(now - self._begun, 1e-9)
        if not self._total:
            return f"{size_text(self._done)}, {size_text(rate)}/s"
        left = (self._total - self._done) / max(rate, 1e-9)
        share = self._done / self._total
        done = f"{size_text(self._done)} of {size_text(self._total)} ({share:.0%})"
        return f"{done}, {size_text(rate)}/s, {time_text(left)} left"


def size_text(size: float) -> str:
    """Return bytes as people say them.

    >>> size_text(1_234_567)
    '1.2 MB'
    """
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"


def time_text(seconds: float) -> str:
    """Return a time as people say it.

    >>> time_text(75), time_text(7300)
    ('1 min 15 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
