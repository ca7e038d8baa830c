"""What is watched in a run, what is trouble, and what is done about it: from code, or the platform's file."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mooring.contract.debugger_config import DebugHookConfig
from mooring.contract.errors import HyperparameterError, SettingError, UserCodeError
from mooring.contract.typed import limited, parse_hyperparameters

logger = logging.getLogger(__name__)


class OnTrouble(Enum):
    """What is done when something watched is in trouble."""

    WARN = "warn"  # once for each thing
    STOP = "stop"  # all ranks end, before the step is applied


WATCHES_VARIABLE, OFF = "MOORING_WATCHES", "off"


def asked_watches(variables: Mapping[str, str]) -> str | None:
    """Return what MOORING_WATCHES says, `OFF` or what is done on trouble; None if nothing. Raises `SettingError`."""
    asked = variables.get(WATCHES_VARIABLE, "").lower()
    known = (OFF, *(each.value for each in OnTrouble))
    if asked and asked not in known:
        raise SettingError(WATCHES_VARIABLE, asked, ", ".join(known))
    return asked or None


class WatchSettingError(UserCodeError):
    """A setting of the watches cannot be used; all that are wrong are named."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        # The sentences are those of hyperparameters, which these are read like.
        super().__init__("\n".join(problem.replace("Hyperparameter", "Watch setting") for problem in problems))


@dataclass(frozen=True)
class WatchSettings:
    """How a run is watched. Every field is a keyword of `Watches`, and a HookParameter of debughookconfig.json."""

    on_trouble: OnTrouble = OnTrouble.WARN
    every: int = limited(50, minimum=1)  # steps between looks at gradients and activations
    looks: int = limited(3, minimum=1)  # in a row, before what is small or dead is trouble
    losses: bool = True
    gradients: bool = True
    activations: bool = True
    exploding_norm: float = limited(1e4, above=0)  # of one gradient
    vanishing_rms: float = limited(1e-9, minimum=0)  # root mean square of one gradient
    dead_share: float = limited(1.0, above=0, maximum=1)  # of a ReLU's outputs that are zero
    loss_window: int = limited(200, minimum=1)  # steps whose mean loss is compared with that of others
    loss_patience: int = limited(5, minimum=1)  # windows without a lower mean
    loss_decrease: float = limited(0.001, minimum=0, maximum=1)  # share by which a mean has to be lower

    @classmethod
    def load(cls, given: Mapping[str, Any], config: DebugHookConfig | None) -> "WatchSettings":
        """Return the settings of a job: what code gives comes before the file. Raises `WatchSettingError`."""
        asked = _from_config(config) if config is not None else {}
        coded = {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
        try:
            return parse_hyperparameters(cls, asked | coded)
        except HyperparameterError as error:
            raise WatchSettingError(error.problems) from error


# The platform's names of collections, and what of ours looks at them.
COLLECTIONS = {"losses": "losses", "gradients": "gradients", "relu_output": "activations", "relu_input": "activations"}
INTERVALS = ("train.save_interval", "save_interval")


def _from_config(config: DebugHookConfig) -> dict[str, Any]:
    """Return what a file asks for. Collections name what is watched; without any that we know, everything is."""
    names = {field.name for field in dataclasses.fields(WatchSettings)}
    asked: dict[str, Any] = {name: value for name, value in config.parameters.items() if name in names}
    watched = {COLLECTIONS[name] for name in config.collections if name in COLLECTIONS}
    if watched:
        asked |= {name: name in watched for name in set(COLLECTIONS.values()) if name not in asked}
    parameters = [config.parameters, *config.collections.values()]
    intervals = [each[name] for each in parameters for name in INTERVALS if name in each]
    usable = [int(text) for text in intervals if text.isdecimal() and int(text) > 0]
    if usable and "every" not in asked:
        asked["every"] = min(usable)
    others = sorted(set(config.collections) - set(COLLECTIONS))
    if others:
        logger.info("debughookconfig.json also names %s, of which nothing is kept here", ", ".join(others))
    return asked
