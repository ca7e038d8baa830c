"""What a run remembers of its epochs: which was best, and whether it is worth going on."""

from dataclasses import asdict, dataclass
from typing import Any

from .settings import Settings


@dataclass
class BestEpoch:
    """The best validation accuracy, after which step it was, and how many epochs in a row brought no improvement.

    An accuracy has improved if it rose by at least a part, `early_stopping_tolerance`, of the last that had.
    """

    accuracy: float = -1.0
    step: int = 0
    improved: float = 0.0  # the accuracy that the next one has to improve on
    waited: int = 0

    def add(self, accuracy: float, step: int, tolerance: float) -> None:
        """Take an epoch's validation accuracy. Of equal ones the last is best: it has seen more."""
        if accuracy >= self.accuracy:
            self.accuracy, self.step = accuracy, step
        rise = accuracy - self.improved
        if rise > 0 and rise >= tolerance * self.improved:
            self.improved, self.waited = accuracy, 0
        else:
            self.waited += 1

    def is_over(self, settings: Settings, epochs: int) -> bool:
        """Whether the run ends after so many epochs."""
        if epochs >= settings.epochs:
            return True
        may_stop = settings.early_stopping and epochs >= settings.early_stopping_min_epochs
        return may_stop and self.waited >= settings.early_stopping_patience

    def state_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint holds it."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint held."""
        for name, value in state.items():
            setattr(self, name, value)
