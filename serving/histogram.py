"""How long things took, or how many there were, counted into buckets: cheap enough for every request."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

# Upper bounds in seconds. A tiny model is answered in less than the first, a generated text in some of the last.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Requests that run together.
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts by bucket, the last of which has no bound, and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count several values."""
        bounds, counts, total = self.bounds, self.counts, self.total
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.total = total

    def add(self, total: float, counts: Sequence[int]) -> None:
        """Count what another histogram of the same bounds has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.total += total


def cumulative(bounds: Sequence[float], counts: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Yield each bound, as Prometheus writes it, with the number of values up to it."""
    so_far = 0.0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        so_far += count
        yield bound, so_far
