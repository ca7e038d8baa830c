"""Which checkpoints stay. Pure: it is told what there is, and says what to keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Best(Enum):
    """Which way a metric gets better."""

    HIGHEST = "highest"
    LOWEST = "lowest"


@dataclass(frozen=True)
class Retention:
    """What to keep: the newest `last`, every step that `every` divides, and the best by metric, each if asked for."""

    last: int = 2
    every: int | None = None
    best: Best | None = None

    def __post_init__(self) -> None:
        """Refuse to keep nothing: the newest is what a run resumes from. Raises `ValueError`."""
        if self.last < 1 or (self.every is not None and self.every < 1):
            raise ValueError(f"{self} would keep nothing; last and every are at least 1")

    def kept(self, metrics: Mapping[int, float | None]) -> set[int]:
        """Return the steps to keep among those there are, each with the metric it was saved with.

        >>> sorted(Retention(last=1, every=100, best=Best.HIGHEST).kept({100: 0.7, 150: 0.9, 160: None, 170: 0.8}))
        [100, 150, 170]
        """
        kept = set(sorted(metrics)[-self.last :])
        if self.every is not None:
            kept |= {step for step in metrics if step % self.every == 0}
        measured = {step: metric for step, metric in metrics.items() if metric is not None}
        if self.best is not None and measured:
            choose = max if self.best is Best.HIGHEST else min
            kept.add(choose(measured, key=lambda step: (measured[step], step)))
        return kept
