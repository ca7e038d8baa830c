"""Steps and what they are made of: times that a loop leaves behind, folded into one record for each stretch of time."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, NamedTuple

from .clocks import Clock

DATA, OTHER = "data", "other"
# What a run shows as its slowest steps is chosen from the slowest of each stretch.
SLOWEST_KEPT = 3
# Times are kept in classes this wide, so that percentiles of a million steps need a few hundred numbers.
CLASS_WIDTH = 1.02
CLASS_LOG = math.log(CLASS_WIDTH)


class MarkedStep(NamedTuple):
    """A step that a loop has done: where each part of it began, and where it ended, as marks of a clock."""

    number: int
    at: float  # the run's time, in seconds since the epoch
    parts: Sequence[tuple[str, Any]]
    end: Any

    def timed(self, clock: Clock) -> "TimedStep":
        """Return it with times, once its end has been passed. What is in no phase is "other"."""
        phases: dict[str, float] = {}
        end = self.end
        for name, begin in reversed(self.parts):
            phases[name] = phases.get(name, 0.0) + clock.seconds(begin, end)
            end = begin
        return TimedStep(self.number, self.at, dict(reversed(phases.items())))


@dataclass(frozen=True)
class TimedStep:
    """A step, and the seconds that each part of it took."""

    number: int
    at: float
    phases: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """The whole of it."""
        return sum(self.phases.values())

    def as_row(self) -> dict[str, Any]:
        """Return it as it is kept."""
        return {"number": self.number, "at": round(self.at, 3), "phases": rounded(self.phases)}


def stretch(steps: Iterable[TimedStep]) -> dict[str, Any]:
    """Return a record of steps that came one after the other, at least one."""
    steps = list(steps)
    phases: dict[str, float] = {}
    for step in steps:
        for name, seconds in step.phases.items():
            phases[name] = phases.get(name, 0.0) + seconds
    classes = Counter(time_class(step.seconds) for step in steps)
    slowest = nlargest(SLOWEST_KEPT, steps, key=lambda step: step.seconds)
    return {
        "kind": "steps",
        "at": round(steps[0].at, 3),
        "count": len(steps),
        "phases": rounded(phases),
        "classes": {str(index): count for index, count in sorted(classes.items())},
        "slowest": [step.as_row() for step in slowest],
    }


def time_class(seconds: float) -> int:
    """Return the class that a time falls into."""
    return round(math.log(max(seconds, 1e-9)) / CLASS_LOG)


def class_seconds(index: int) -> float:
    """Return the time in the middle of a class."""
    return math.pow(CLASS_WIDTH, index)


def rounded(phases: Mapping[str, float]) -> dict[str, float]:
    """Return times to the microsecond, which is less than it costs to take them."""
    return {name: round(seconds, 6) for name, seconds in phases.items()}
