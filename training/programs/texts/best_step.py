"""What a run remembers of its validations: which was best, and whether it is worth going on."""

import math
from dataclasses import dataclass
from typing import Any

from mooring.training.retention import Best

from .settings import Metric

LOWER_IS_BETTER = (Metric.LOSS, Metric.MSE)


def better(metric: Metric) -> Best:
    """Return which way a metric gets better."""
    return Best.LOWEST if metric in LOWER_IS_BETTER else Best.HIGHEST


@dataclass
class BestStep:
    """The step that was best, and how many validations in a row were no better. Part of a checkpoint."""

    way: Best
    value: float | None = None
    step: int = 0
    waited: int = 0
    judged: int = 0  # the last step after which the model was validated

    def add(self, value: float | None, step: int) -> None:
        """Take a validation's metric, None where there is nothing to validate with."""
        self.judged = step
        if value is None:
            return
        self.waited = 0 if self._improves(value) else self.waited + 1
        # Of equal steps the one that `Retention` keeps.
        if self._improves(value) or (value == self.value and self.way is Best.HIGHEST):
            self.value, self.step = value, step

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or self.value is None:
            return not math.isnan(value)
        return value > self.value if self.way is Best.HIGHEST else value < self.value

    def is_over(self, patience: int | None) -> bool:
        """Whether too many validations were no better."""
        return patience is not None and self.waited >= patience

    def state_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint holds it."""
        return {"value": self.value, "step": self.step, "waited": self.waited, "judged": self.judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint held."""
        for name, value in state.items():
            setattr(self, name, value)
