"""The two clocks that steps are timed by: the process's own, and a GPU's, where what is asked for happens later.

On a GPU a mark is an event in its stream, so the time between two marks is the GPU's, waiting for data included, and
nobody waits for it: a step's times are read once the GPU has come past its last mark.
"""

import sys
import time
from typing import Any, Protocol


class Clock(Protocol):
    """Makes marks in time; how far apart two are is known once the later one has been passed."""

    def mark(self) -> Any:
        """Return a mark of now."""

    def is_passed(self, mark: Any) -> bool:
        """Whether the time up to a mark can be read without waiting."""

    def seconds(self, earlier: Any, later: Any) -> float:
        """Return the time between two marks that have been passed."""

    def wait(self, mark: Any) -> None:
        """Return when a mark has been passed."""


class ProcessClock:
    """Time as the process sees it: right where work is done when a call returns, as on a CPU."""

    mark = staticmethod(time.perf_counter)  # asked a dozen times a step

    def is_passed(self, mark: float) -> bool:
        """Say so: now is always passed."""
        return True

    def seconds(self, earlier: float, later: float) -> float:
        """Return the time between two marks."""
        return later - earlier

    def wait(self, mark: float) -> None:
        """Return at once."""


class CudaClock:
    """Time as the present stream of the present GPU sees it."""

    def __init__(self) -> None:
        self._cuda = sys.modules["torch"].cuda

    def mark(self) -> Any:
        """Put an event into the stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_passed(self, mark: Any) -> bool:
        """Ask whether the GPU has come past an event."""
        return bool(mark.query())

    def seconds(self, earlier: Any, later: Any) -> float:
        """Return the GPU's time between two events."""
        return float(earlier.elapsed_time(later)) / 1000

    def wait(self, mark: Any) -> None:
        """Wait for the GPU to pass an event."""
        mark.synchronize()


def clock_here() -> Clock:
    """Return the GPU's clock in a process that uses one, else the process's own."""
    torch = sys.modules.get("torch")
    return CudaClock() if torch is not None and torch.cuda.is_initialized() else ProcessClock()
