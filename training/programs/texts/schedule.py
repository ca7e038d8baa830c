"""When things happen in a run: how many steps it has, its learning rate at each, and what is due after it. Pure."""

import math
from dataclasses import dataclass

from mooring.contract.errors import HyperparameterError

from .settings import Settings


@dataclass(frozen=True)
class Schedule:
    """A run's steps. Each uses `batch_size` texts, over all ranks."""

    steps: int
    steps_per_epoch: int
    batch_size: int
    warmup: int
    form: str
    eval_every: int
    save_every: int | None

    @classmethod
    def of(cls, settings: Settings, texts: int, world_size: int) -> "Schedule":
        """Return the schedule for so many training texts. Raises `HyperparameterError` where there are too few."""
        batch_size = settings.batch_size(world_size)
        if not world_size <= batch_size <= texts:
            problem = f"expected from {world_size}, the number of ranks, to {texts}, the number of training texts"
            raise HyperparameterError([f"A step's batch, mini_batch_size, is {batch_size}; {problem}."])
        per_epoch = texts // batch_size
        steps = settings.max_steps or settings.epochs * per_epoch
        warmup = (
            settings.warmup_steps if settings.warmup_steps is not None else math.ceil(settings.warmup_ratio * steps)
        )
        every = settings.eval_steps or per_epoch
        return cls(steps, per_epoch, batch_size, warmup, settings.lr_scheduler_type, every, settings.save_steps)

    def rate(self, step: int) -> float:
        """Return the part of the learning rate that holds after so many steps."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        forms = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        return forms[self.form]

    def epoch(self, step: int) -> float:
        """Return how many times all texts have been used after a step."""
        return round(step / self.steps_per_epoch, 3)

    def evaluates_after(self, step: int) -> bool:
        """Whether the model is validated after a step: as often as asked, and after the last."""
        return step % self.eval_every == 0 or step >= self.steps

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after a step besides those that go with validation."""
        return self.save_every is not None and step % self.save_every == 0 and not self.evaluates_after(step)
