"""Training: the launcher behind `train`, and what a training script imports. Names load when they are first used.

from mooring.training import Checkpointer, TrainingState, hyperparameters, prepare, process_group, report
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mooring.contract.typed import hyperparameters

    from .checkpoint import Checkpointer
    from .data.channel import InputChannel, channel
    from .data.formats import Csv, JsonLines, Lines, Records
    from .data.manifests import Augmented
    from .distributed import Group, prepare, process_group, whole_weights
    from .metrics import report
    from .retention import Best, Retention
    from .sampler import DataPosition, GlobalBatchSampler, data_loader
    from .state import TrainingState
    from .stop import StopRequest

__all__ = [
    "Augmented",
    "Best",
    "Checkpointer",
    "Csv",
    "DataPosition",
    "GlobalBatchSampler",
    "Group",
    "InputChannel",
    "JsonLines",
    "Lines",
    "Records",
    "Retention",
    "StopRequest",
    "TrainingState",
    "channel",
    "data_loader",
    "hyperparameters",
    "prepare",
    "process_group",
    "report",
    "whole_weights",
]

MODULES = {
    "Augmented": ".data.manifests",
    "Best": ".retention",
    "Checkpointer": ".checkpoint",
    "Csv": ".data.formats",
    "DataPosition": ".sampler",
    "GlobalBatchSampler": ".sampler",
    "Group": ".distributed",
    "InputChannel": ".data.channel",
    "JsonLines": ".data.formats",
    "Lines": ".data.formats",
    "Records": ".data.formats",
    "Retention": ".retention",
    "StopRequest": ".stop",
    "TrainingState": ".state",
    "channel": ".data.channel",
    "data_loader": ".sampler",
    "hyperparameters": "mooring.contract.typed",
    "prepare": ".distributed",
    "process_group": ".distributed",
    "report": ".metrics",
    "whole_weights": ".distributed",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that the launcher, which needs no torch, does not pay for it."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name], __name__), name)
