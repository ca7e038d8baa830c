"""When what is watched is in trouble: numbers in, sentences out. Nothing here touches a tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .watch_settings import WatchSettings


@dataclass(frozen=True)
class Trouble:
    """Something wrong: what kind, with which tensor or module, and a sentence with step, value and limit."""

    kind: str
    name: str
    sentence: str


@dataclass
class LossRule:
    """Watches losses as they come, in the order of steps."""

    settings: WatchSettings
    _window: list[float] = field(default_factory=list)
    _least: float | None = None
    _least_at: int = 0
    _without: int = 0

    def judge(self, step: int, loss: float) -> list[Trouble]:
        """Take the loss of one step."""
        if not math.isfinite(loss):
            return [Trouble("loss", "loss", f"The loss is {loss} at step {step}.")]
        self._window.append(loss)
        if len(self._window) < self.settings.loss_window:
            return []
        mean, self._window = math.fsum(self._window) / len(self._window), []
        if self._least is None or mean < self._least - abs(self._least) * self.settings.loss_decrease:
            self._least, self._least_at, self._without = mean, step, 0
            return []
        self._without += 1
        if self._without < self.settings.loss_patience:
            return []
        sentence = (
            f"The loss does not decrease: its mean of {self.settings.loss_window} steps is {mean:.6g} at step {step}, "
            f"and has not been {self.settings.loss_decrease:.2%} below {self._least:.6g} since step {self._least_at}."
        )
        return [Trouble("loss not decreasing", "loss", sentence)]


@dataclass
class GradientRule:
    """Watches the norm of each gradient, at one look after the other."""

    settings: WatchSettings
    _small: dict[str, int] = field(default_factory=dict)  # looks in a row

    def judge(self, step: int, norms: Mapping[str, tuple[float, int]], *, overflows: bool = False) -> list[Trouble]:
        """Take norms with numbers of elements. `overflows` says that a scaler takes care of what is not finite."""
        troubles = []
        for name, (norm, count) in norms.items():
            if not math.isfinite(norm):
                if not overflows:
                    sentence = f"The gradient of '{name}' has a norm of {norm} at step {step}."
                    troubles.append(Trouble("gradient not finite", name, sentence))
                continue
            if norm > self.settings.exploding_norm:
                limit = f"over the limit of {self.settings.exploding_norm:g}"
                sentence = f"The gradient of '{name}' has a norm of {norm:.4g} at step {step}, {limit}."
                troubles.append(Trouble("exploding gradient", name, sentence))
            troubles += self._vanishing(step, name, norm / math.sqrt(count))
        return troubles

    def _vanishing(self, step: int, name: str, rms: float) -> list[Trouble]:
        is_small = rms < self.settings.vanishing_rms
        self._small[name] = self._small.get(name, 0) + 1 if is_small else 0
        if self._small[name] < self.settings.looks:
            return []
        limit = f"under the limit of {self.settings.vanishing_rms:g} at {self._small[name]} looks in a row"
        sentence = f"The gradient of '{name}' has a root mean square of {rms:.4g} at step {step}, {limit}."
        return [Trouble("vanishing gradient", name, sentence)]


@dataclass
class ActivationRule:
    """Watches the share of zeros that each ReLU gives, at one look after the other."""

    settings: WatchSettings
    _dead: dict[str, int] = field(default_factory=dict)  # looks in a row

    def judge(self, step: int, zeros: Mapping[str, float]) -> list[Trouble]:
        """Take shares of zeros."""
        troubles = []
        for name, share in zeros.items():
            self._dead[name] = self._dead.get(name, 0) + 1 if share >= self.settings.dead_share else 0
            if self._dead[name] >= self.settings.looks:
                limit = f"at least {self.settings.dead_share:.0%} at {self._dead[name]} looks in a row"
                sentence = f"The outputs of '{name}' are {share:.1%} zeros at step {step}, {limit}: it is dead."
                troubles.append(Trouble("dead activation", name, sentence))
        return troubles
