"""Everything that makes a resumed run the same run: what a checkpoint holds."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .distributed import share_buffers
from .generators import generator_states, restore_generators
from .sampler import DataPosition

GENERATORS = "generators"
# Small, the same on every rank, and shaped as they please.
OPAQUE_PARTS = ("scheduler", "scaler", "progress")


@dataclass
class TrainingState:
    """A run's state. `step` counts optimizer steps; it and the position are the loop's to advance.

    `progress` is whatever else the loop has to remember, such as the best accuracy so far.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    position: DataPosition = field(default_factory=DataPosition)
    step: int = 0
    scaler: torch.amp.GradScaler | None = None
    progress: Stateful | None = None

    def capture(self) -> dict[str, Any]:
        """Return all of it, sharing memory with what trains. Call it on all ranks after the same step."""
        share_buffers(self.model)
        state: dict[str, Any] = {
            "model": get_model_state_dict(self.model),
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer),
            "position": self.position.state_dict(),
            "step": torch.tensor(self.step),
            # A rank's generators are its own; everything else is one for all ranks.
            GENERATORS: {f"rank-{dist.get_rank()}": generator_states()},
        }
        for name, part in self._opaque_parts():
            # One value: DCP would flatten it, and some schedulers key their state by numbers.
            state[name] = pickle.dumps(part.state_dict())
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint held."""
        set_model_state_dict(self.model, state["model"])
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"])
        self.position.load_state_dict(state["position"])
        self.step = int(state["step"])
        for name, part in self._opaque_parts():
            # As trustworthy as the folder it lies in: whoever can write there could start another script as well.
            part.load_state_dict(pickle.loads(state[name]))  # noqa: S301
        for states in state.get(GENERATORS, {}).values():
            restore_generators(states)

    def _opaque_parts(self) -> list[tuple[str, LRScheduler | torch.amp.GradScaler | Stateful]]:
        parts = zip(OPAQUE_PARTS, (self.scheduler, self.scaler, self.progress), strict=True)
        return [(name, part) for name, part in parts if part is not None]
