"""What the batches of models took, counted in a host and told to the front door about once a second."""

import time
from collections.abc import Collection
from typing import Any

import orjson

from mooring.handler.stages import STAGES, WATCH

from .histogram import BATCH_BOUNDS, Histogram

TELL_S = 1.0
QUEUE, BATCH = "queue", "batch"


def new_histograms() -> dict[str, Histogram]:
    """Return what is counted of a model: seconds by stage, and requests in a batch."""
    return {QUEUE: Histogram(), **{stage: Histogram() for stage in STAGES}, BATCH: Histogram(BATCH_BOUNDS)}


class Tallies:
    """The counts of a host's models since they were told last."""

    def __init__(self) -> None:
        self._models: dict[int, dict[str, Histogram]] = {}
        self._due = 0.0

    def ran(self, number: int, waited: Collection[float]) -> None:
        """Count a batch by how long its requests had waited, and by what the watch says of it."""
        counted = self._models.get(number)
        if counted is None:
            if not self._models:
                self._due = time.monotonic() + TELL_S
            counted = self._models[number] = new_histograms()
        counted[QUEUE].observe_all(waited)
        for stage, seconds in WATCH.seconds.items():
            counted[stage].observe(seconds)
        counted[BATCH].observe(len(waited))

    def seconds_until_due(self, now: float) -> float | None:
        """Return when there is something to tell, None while there is nothing."""
        return max(0.0, self._due - now) if self._models else None

    def take(self) -> bytes:
        """Return what was counted, and begin anew."""
        told = {
            str(number): {name: [one.total, *one.counts] for name, one in counted.items()}
            for number, counted in self._models.items()
        }
        self._models = {}
        return orjson.dumps(told)


def read(told: bytes) -> dict[int, dict[str, list[Any]]]:
    """Return what a host has told: for each model's number, total and counts of each histogram."""
    return {int(number): counted for number, counted in orjson.loads(told).items()}
