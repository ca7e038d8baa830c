"""Which parameters of a classifier are trained, and by what."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mooring.contract.errors import HyperparameterError

from .schedule import Schedule
from .settings import Settings

logger = logging.getLogger(__name__)


def freeze(network: Any, settings: Settings, example: torch.Tensor) -> None:
    """Leave as it is what the settings say, and what no answer depends on: ranks would wait for its gradients.

    Raises `HyperparameterError` for more layers than the model has.
    """
    for parameters in _frozen(network, settings):
        for parameter in parameters:
            parameter.requires_grad_(False)
    torch.autograd.backward(network.eval()(example).logits.sum())
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            logger.info("%s is not trained: no answer depends on it", name)
            parameter.requires_grad_(False)
    network.zero_grad(set_to_none=True)
    trained, whole = (
        sum(one.numel() for one in network.parameters() if one.requires_grad >= least) for least in (1, 0)
    )
    logger.info("%s: %s of %s parameters are trained", type(network).__name__, f"{trained:,}", f"{whole:,}")


def _frozen(network: Any, settings: Settings) -> Iterator[Iterator[nn.Parameter]]:
    if settings.freeze_base:
        yield network.base_model.parameters()
    elif settings.freeze_layers:
        lists = [module for module in network.base_model.modules() if isinstance(module, nn.ModuleList)]
        layers = max(lists, key=len, default=nn.ModuleList())
        if settings.freeze_layers > len(layers):
            problem = f"expected at most {len(layers)}, which this model has"
            raise HyperparameterError([f"Hyperparameter 'freeze_layers' is {settings.freeze_layers}; {problem}."])
        yield from (module.parameters() for module in network.modules() if isinstance(module, nn.Embedding))
        yield from (layer.parameters() for layer in layers[: settings.freeze_layers])


def make_optimizer(network: nn.Module, settings: Settings, schedule: Schedule) -> tuple[AdamW, LambdaLR]:
    """Return AdamW, without decay on norms and biases, and its learning rate's schedule."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in trained if one.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    optimizer = AdamW(
        [group for group in groups if group["params"]], settings.learning_rate, betas, settings.adam_epsilon
    )
    return optimizer, LambdaLR(optimizer, schedule.rate)
