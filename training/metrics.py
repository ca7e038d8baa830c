"""Metrics of a run: a line each for the platform's regular expressions, and a file for whoever draws curves.

Neither torch nor a process group is needed; with them, tensors are taken as they are, and only the first rank speaks.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from mooring.contract.environment import process_variables
from mooring.contract.errors import UserCodeError
from mooring.contract.paths import ContainerPaths

from .metric_lines import MAX_NAME, NAME, metric_lines
from .metric_rows import PLACE, TIME, append_row, metrics_file

logger = logging.getLogger(__name__)


class MetricError(UserCodeError):
    """One or more metrics cannot be reported; all are named at once."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def report(*, step: float | None = None, epoch: float | None = None, **metrics: Any) -> None:
    """Print each metric on a line of its own, and add them to output/data/metrics.jsonl. On the first rank only.

    Values are numbers, or tensors of one element, which are moved to the CPU together. Names that are no identifiers
    are given in a dictionary. A metric definition's regular expression is ` NAME=([0-9.eE+-]+);`, space first.

        report(epoch=3, step=1200, loss=loss, **{"Validation-accuracy": 0.97})

    Raises `MetricError` naming every value that is no number.
    """
    if not _is_first_rank():
        return
    given = {name: value for name, value in (("epoch", epoch), ("step", step)) if value is not None} | metrics
    numbers = _numbers(given)
    place: dict[str, float] = {name: numbers.pop(name) for name in ("epoch", "step") if name in numbers}
    # One write, so that no other writer's line comes between.
    sys.stdout.write("".join(line + "\n" for line in metric_lines(place, numbers)))
    sys.stdout.flush()
    _record(place | numbers)


def _is_first_rank() -> bool:
    """Whether this rank speaks for all. Who has not imported torch has no group."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return bool(torch.distributed.get_rank() == 0)
    return process_variables().get("RANK", "0") == "0"


def _record(numbers: Mapping[str, float]) -> None:
    """Keep a row. A disk that is full costs the row, not the run: the line in the log is what the platform reads."""
    file = metrics_file(ContainerPaths.from_variables(process_variables()))
    try:
        append_row(file, {**numbers, TIME: round(time.time(), 3)})
    except OSError as error:
        logger.warning("Metrics were printed, but not recorded in %s: %s", file, error)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return all values as numbers. Raises `MetricError`."""
    numbers: dict[str, float] = {}
    tensors: dict[str, Any] = {}
    problems = []
    for name, value in values.items():
        if problem := _problem(name, value):
            problems.append(problem)
        elif _is_tensor(value):
            tensors[name] = value
        else:
            item = value.item() if hasattr(value, "item") else value  # one of numpy's
            numbers[name] = item if isinstance(item, int) else float(item)
    if problems:
        raise MetricError(problems)
    numbers |= _moved(tensors)
    return {name: numbers[name] for name in values}


def _problem(name: str, value: Any) -> str | None:
    """Return what is wrong with a metric, if anything is."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        return f"Metric name {name[:80]!r} cannot be used; expected up to {MAX_NAME} characters, no space, '=' or ';'."
    if name == TIME:
        return f"Metric name '{TIME}' is taken: every row has the time of its report. Call it 'seconds', say."
    if _is_tensor(value):
        return _problem_of_tensor(name, value)
    item = value.item() if hasattr(value, "item") and getattr(value, "size", None) == 1 else value
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
        return f"Metric '{name}' is {shown} ({type(value).__name__}); expected a number or a tensor of one element."
    if name in PLACE and not math.isfinite(item):
        return f"Metric '{name}' is {item}; expected a number that says where in the run this is."
    return None


def _problem_of_tensor(name: str, value: Any) -> str | None:
    if hasattr(value, "full_tensor"):
        return f"Metric '{name}' is spread over ranks; call its full_tensor() on all of them, and report that."
    if value.numel() != 1 or value.is_complex():
        what = f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
        return f"Metric '{name}' is {what}; expected one element: its mean(), perhaps."
    return None


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _moved(tensors: Mapping[str, Any]) -> dict[str, float]:
    """Return tensors as numbers, with one transfer from each device, and so one wait for it."""
    moved: dict[str, float] = {}
    for device in {tensor.device for tensor in tensors.values()}:
        here = {name: tensor for name, tensor in tensors.items() if tensor.device == device}
        stacked = sys.modules["torch"].stack([tensor.detach().reshape(()).float() for tensor in here.values()])
        moved |= dict(zip(here, stacked.tolist(), strict=True))
    return moved
