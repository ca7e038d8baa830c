"""How far a run has come, and how long it will still take."""

import time
from collections.abc import Mapping


class Progress:
    """Rows with the seconds each is thought to take; corrected by how long they do take."""

    def __init__(self, estimates: Mapping[str, float]) -> None:
        self._left = dict(estimates)
        self._started = time.monotonic()
        self._row = ""
        self._paced_from: tuple[float, float] | None = None

    def begin(self, row: str) -> None:
        """Say which row comes next."""
        self._row, self._paced_from = row, None
        self.say("begins", 0.0)

    def end(self, row: str) -> None:
        """Note that nothing of a row is left to do."""
        self._left.pop(row, None)

    def say(self, text: str, share: float) -> None:
        """Print a line, with the share of the row that is done."""
        now = time.monotonic()
        expected = self._left.get(self._row, 0.0)
        if share and self._paced_from is None:
            self._paced_from = (now, share)
        elif share and self._paced_from is not None:  # servers that were started before are no part of a row's pace
            began, done = self._paced_from
            expected = (now - began) / (share - done) if share > done else expected
        later = sum(seconds for row, seconds in self._left.items() if row != self._row)
        left = later + expected * (1 - share)
        print(f"{_clock(now - self._started)} (left {_clock(left)})  {self._row}: {text}", flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
