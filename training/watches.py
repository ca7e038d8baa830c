"""Watches over a run: losses, gradients and activations, looked at together every so many steps.

A look moves a handful of numbers to the CPU, once; between looks nothing waits for the device. All ranks look after
the same step and decide alike, so that a run that is stopped is stopped everywhere.
"""

import logging
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import nn

from mooring.contract.debugger_config import SWITCHES, read_debug_hook_config
from mooring.contract.environment import process_variables
from mooring.contract.errors import UserCodeError
from mooring.contract.paths import ContainerPaths

from .distributed import unwrapped
from .watch_rules import ActivationRule, GradientRule, LossRule, Trouble
from .watch_settings import OFF, OnTrouble, WatchSettings, asked_watches

logger = logging.getLogger(__name__)

# More would hide the first; a network that breaks breaks everywhere.
SENTENCES_SHOWN = 3
MOST_GATHERED = 50


class TroubleError(UserCodeError):
    """A watch has stopped the run."""

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__(f"{' '.join(sentences)} The run was stopped before this step changed the weights.")


class Watches:
    """Looks after a model's training while the `with` block runs. Enter, call and leave it on all ranks alike.

        with Watches(model, on_trouble="stop") as watches:
            ...
            loss.backward()
            watches.look(loss, state.step)
            optimizer.step()

    Keywords are the fields of `WatchSettings`, and come before what debughookconfig.json says. MOORING_WATCHES comes
    before both: `warn`, `stop`, or `off`, as USE_SMDEBUG=0. Raises `TroubleError` from `look`, on all ranks, where
    trouble is to stop the run. With a `scaler` gradients are taken back to their scale, and what is not finite is left
    to it. ReLUs are seen as modules only.
    """

    def __init__(self, model: nn.Module, *, scaler: torch.amp.GradScaler | None = None, **settings: Any) -> None:
        variables = process_variables()
        config = read_debug_hook_config(ContainerPaths.from_variables(variables), variables)
        asked = asked_watches(variables)
        self._is_on = asked != OFF and SWITCHES.get(variables.get("USE_SMDEBUG", "").lower(), True)
        on_trouble = {} if asked in (None, OFF) else {"on_trouble": asked}
        self.settings = WatchSettings.load(settings | on_trouble, config)
        self._model = unwrapped(model)
        self._scaler = scaler
        self._losses = LossRule(self.settings)
        self._gradients = GradientRule(self.settings)
        self._activations = ActivationRule(self.settings)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._group: Any = None
        self._calls = 0
        self._pending: list[tuple[int, torch.Tensor]] = []  # losses that nobody has looked at
        self._zeros: dict[str, torch.Tensor] = {}
        self._warned: set[tuple[str, str]] = set()

    def look(self, loss: torch.Tensor | float, step: int | None = None) -> None:
        """Take a step's loss, between the backward pass and the optimizer's step. Raises `TroubleError`."""
        if not self._is_on:
            return
        self._calls += 1
        at = self._calls if step is None else step
        if self.settings.losses:
            self._pending.append((at, torch.as_tensor(loss).detach()))
        if self._calls % self.settings.every == 0:
            self._judge(at, self._named_gradients())

    @property
    def _is_looking(self) -> bool:
        """Whether the step that runs will be looked at."""
        return (self._calls + 1) % self.settings.every == 0

    # --- looking ----------------------------------------------------------------------------------------------------

    def _named_gradients(self) -> dict[str, torch.Tensor]:
        """Return what this rank holds of each gradient."""
        if not self.settings.gradients:
            return {}
        named = {
            name: parameter.grad.to_local() if hasattr(parameter.grad, "to_local") else parameter.grad
            for name, parameter in self._model.named_parameters()
            if parameter.grad is not None
        }
        return {name: gradient for name, gradient in named.items() if gradient.numel() and not gradient.is_sparse}

    @torch.no_grad()
    def _judge(self, step: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """Look at everything there is, and do what is to be done about it. Raises `TroubleError`."""
        norms = torch._foreach_norm(list(gradients.values()), 2, torch.float32) if gradients else []
        pending, self._pending = self._pending, []
        zeros, self._zeros = self._zeros, {}
        moved = iter(_moved([*(loss for _, loss in pending), *norms, *zeros.values()]))
        troubles = [trouble for at, _ in pending for trouble in self._losses.judge(at, next(moved))]
        scale = 1.0 if self._scaler is None else self._scaler.get_scale() or 1.0
        measured = {name: (next(moved) / scale, gradient.numel()) for name, gradient in gradients.items()}
        troubles += self._gradients.judge(step, measured, overflows=self._scaler is not None)
        troubles += self._activations.judge(step, {name: next(moved) for name in zeros})
        self._act(troubles)

    def _act(self, troubles: list[Trouble]) -> None:
        """Tell all ranks of trouble on any; then warn, or raise `TroubleError` on all of them."""
        told = self._everyones(troubles)
        if told and self.settings.on_trouble is OnTrouble.STOP:
            raise TroubleError([trouble.sentence + who for trouble, who in told[:SENTENCES_SHOWN]])
        for trouble, who in told:
            if (trouble.kind, trouble.name) not in self._warned:
                self._warned.add((trouble.kind, trouble.name))
                if self._group is None or dist.get_rank() == 0:
                    logger.warning("%s%s It is not told again.", trouble.sentence, who)

    def _everyones(self, troubles: list[Trouble]) -> list[tuple[Trouble, str]]:
        """Return what is wrong on any rank, with the ranks it is wrong on; the same on all of them."""
        if self._group is None:
            return [(trouble, "") for trouble in troubles]
        count = torch.tensor([len(troubles)])
        dist.all_reduce(count, dist.ReduceOp.MAX, group=self._group)
        if not int(count):
            return []
        gathered: list[list[Trouble]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, troubles[:MOST_GATHERED], group=self._group)
        return _by_rank(gathered)

    # --- the model's hooks ------------------------------------------------------------------------------------------

    def _watch_zeros(self, name: str) -> Any:
        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self._is_looking and torch.is_grad_enabled() and isinstance(output, torch.Tensor) and output.numel():
                self._zeros[name] = (output.detach() == 0).float().mean()

        return after

    def __enter__(self) -> Self:
        if not self._is_on:
            return self
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")
        if self.settings.activations:
            relus = [(name, module) for name, module in self._model.named_modules() if isinstance(module, nn.ReLU)]
            self._hooks = [module.register_forward_hook(self._watch_zeros(name)) for name, module in relus]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if kind is None and self._is_on:
            self._zeros = {}
            self._judge(self._calls, {})  # the losses since the last look


def _moved(scalars: list[torch.Tensor]) -> list[float]:
    """Return numbers from their device, in one transfer."""
    if not scalars:
        return []
    device = scalars[-1].device
    flat = [scalar.reshape(-1)[:1].to(device, torch.float32) for scalar in scalars]
    return [float(number) for number in torch.cat(flat).tolist()]


def _by_rank(gathered: list[list[Trouble]]) -> list[tuple[Trouble, str]]:
    """Return troubles once each, in the order of ranks, with the ranks that have them."""
    ranks: dict[tuple[str, str], list[int]] = {}
    first: dict[tuple[str, str], Trouble] = {}
    for rank, troubles in enumerate(gathered):
        for trouble in troubles:
            first.setdefault((trouble.kind, trouble.name), trouble)
            ranks.setdefault((trouble.kind, trouble.name), []).append(rank)
    return [(trouble, _told(ranks[key], len(gathered))) for key, trouble in first.items()]


def _told(ranks: list[int], world_size: int) -> str:
    if len(ranks) == world_size:
        return " (On all ranks.)"
    return f" (On rank {ranks[0]}.)" if len(ranks) == 1 else f" (On ranks {', '.join(map(str, ranks))}.)"
