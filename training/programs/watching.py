"""How the ready-made programs watch over a run: as the job asks, or else over its loss alone, which costs nothing."""

import torch
from torch import nn

from mooring.contract.debugger_config import read_debug_hook_config
from mooring.contract.environment import process_variables
from mooring.contract.paths import ContainerPaths
from mooring.training.watch_settings import asked_watches
from mooring.training.watches import Watches


def watches_of_job(model: nn.Module, scaler: torch.amp.GradScaler) -> Watches:
    """Return watches that are to look at losses, and at gradients, as they are before the scaler has unscaled them."""
    only_losses = {} if _is_asked() else {"gradients": False, "activations": False}
    return Watches(model, scaler=scaler if scaler.is_enabled() else None, **only_losses)


def _is_asked() -> bool:
    """Whether the job says what is to be watched; SDKs give every job a configuration, which may say nothing."""
    variables = process_variables()
    config = read_debug_hook_config(ContainerPaths.from_variables(variables), variables)
    says_what = config is not None and bool(config.parameters or config.collections)
    return says_what or asked_watches(variables) is not None
