"""What a handler spends its time on. A host answers in one thread, so that one watch per process will do."""

from time import perf_counter
from types import TracebackType

STAGES = ("decode", "predict", "encode")


class Watch:
    """Seconds spent in each stage since the last reset."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def reset(self) -> None:
        """Begin anew."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def add(self, decode: float, predict: float, encode: float) -> None:
        """Count seconds of all stages at once, for a handler whose batches take less than `timed` would add to them."""
        seconds = self.seconds
        seconds["decode"] += decode
        seconds["predict"] += predict
        seconds["encode"] += encode


WATCH = Watch()


class timed:  # noqa: N801 - read as a word: with timed("predict")
    """Count the seconds of a block as those of a stage. A block that awaits counts what others do meanwhile, too."""

    __slots__ = ("_stage", "_started")

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        WATCH.seconds[self._stage] += perf_counter() - self._started
