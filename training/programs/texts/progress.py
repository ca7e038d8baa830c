"""What a run remembers of its validations, and how fast it goes."""

import math
import time
from dataclasses import dataclass
from typing import Any

from mooring.training.retention import Best

from .schedule import Schedule
from .settings import Metric

LOWER_IS_BETTER = (Metric.LOSS, Metric.MSE)


def better(metric: Metric) -> Best:
    """Return which way a metric gets better."""
    return Best.LOWEST if metric in LOWER_IS_BETTER else Best.HIGHEST


@dataclass
class Progress:
    """The step that was best, and how many validations in a row were no better. Part of a checkpoint."""

    way: Best
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    judged: int = 0  # the last step after which the model was validated

    def add(self, value: float | None, step: int) -> None:
        """Take a validation's metric, None where there is nothing to validate with."""
        self.judged = step
        if value is None:
            return
        self.waited = 0 if self._improves(value) else self.waited + 1
        # Of equal steps the one that `Retention` keeps.
        if self._improves(value) or (value == self.best and self.way is Best.HIGHEST):
            self.best, self.best_step = value, step

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or self.best is None:
            return not math.isnan(value)
        return value > self.best if self.way is Best.HIGHEST else value < self.best

    def is_over(self, patience: int | None) -> bool:
        """Whether too many validations were no better."""
        return patience is not None and self.waited >= patience

    def state_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint holds it."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "judged": self.judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint held."""
        for name, value in state.items():
            setattr(self, name, value)


class Pace:
    """How fast steps go, from the step on that a run begins or resumes with."""

    def __init__(self, step: int) -> None:
        self._first = step
        self._began = time.monotonic()

    def told(self, step: int, schedule: Schedule) -> str:
        """Say where a run is, its rate, and the time that is left at that rate."""
        done, seconds = step - self._first, max(time.monotonic() - self._began, 1e-9)
        left = int((schedule.steps - step) * seconds / max(done, 1))
        rate = done * schedule.batch_size / seconds
        time_left = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return f"step {step} of {schedule.steps} ({step / schedule.steps:.0%}), {rate:.0f} texts/s, {time_left} left"
