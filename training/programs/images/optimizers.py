"""The optimizers that the built-in algorithm has, each with those hyperparameters that the built-in gives it."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import MultiStepLR

from .settings import Settings


def make_optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the optimizer that the settings name."""
    rate = settings.learning_rate
    if settings.optimizer == "adam":
        return Adam(parameters, rate, betas=(settings.beta_1, settings.beta_2), eps=settings.eps)
    if settings.optimizer == "rmsprop":
        return RMSprop(parameters, rate, alpha=settings.gamma, eps=settings.eps)
    momentum = settings.momentum
    is_nesterov = settings.optimizer == "nag" and momentum > 0  # without momentum the two are one
    return SGD(parameters, rate, momentum=momentum, weight_decay=settings.weight_decay, nesterov=is_nesterov)


def make_schedule(settings: Settings, optimizer: Optimizer) -> MultiStepLR:
    """Return what lowers the learning rate after some epochs; to be stepped once an epoch."""
    return MultiStepLR(optimizer, sorted(settings.lr_scheduler_step), settings.lr_scheduler_factor)
