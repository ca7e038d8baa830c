"""What a job's file of metrics says at a glance: last, least and greatest of each."""

import math
from dataclasses import dataclass
from pathlib import Path

from .json_lines import read_rows
from .metric_lines import number_text
from .metric_rows import PLACE, metrics_of

# The last value, where it was taken, and the extremes with their places.
Point = tuple[float, str]


@dataclass
class MetricSummary:
    """One metric of a run. What is not finite counts, and is never the least or the greatest."""

    name: str
    count: int
    last: Point
    least: Point | None
    greatest: Point | None

    def take(self, point: Point) -> None:
        """Take one more value."""
        self.count += 1
        self.last = point
        if math.isfinite(point[0]):
            self.least = point if self.least is None or point[0] < self.least[0] else self.least
            self.greatest = point if self.greatest is None or point[0] > self.greatest[0] else self.greatest

    def cells(self) -> tuple[str, ...]:
        """Return it as a row of a table."""
        return (
            self.name,
            str(self.count),
            number_text(self.last[0]),
            *map(_text, (self.least, self.greatest)),
            self.last[1],
        )


def _text(point: Point | None) -> str:
    return "-" if point is None else f"{number_text(point[0])} ({point[1]})" if point[1] else number_text(point[0])


def summarise(file: Path) -> list[MetricSummary]:
    """Return a summary of each metric in a file, in the order of their first reports. Raises `OSError`."""
    summaries: dict[str, MetricSummary] = {}
    for row in read_rows(file):
        place = ", ".join(f"{name} {row[name]}" for name in reversed(PLACE) if name in row)
        for name, value in metrics_of(row).items():
            summary = summaries.setdefault(name, MetricSummary(name, 0, (value, place), None, None))
            summary.take((value, place))
    return list(summaries.values())
