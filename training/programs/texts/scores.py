"""How good a model is on texts, judged by all ranks together: loss, accuracy and F1, or error and correlation."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from .settings import METRICS, Metric, Problem

# A label belongs to a text, where several may, if its probability is over one half.
IS_LIKELY = 0.0  # as a logit
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def loss_of(problem: Problem, smoothing: float) -> Loss:
    """Return the function that sums the losses of a batch's texts."""
    if problem is Problem.SINGLE_LABEL:
        return lambda logits, targets: cross_entropy(
            logits.float(), targets, reduction="sum", label_smoothing=smoothing
        )
    if problem is Problem.MULTI_LABEL:
        return lambda logits, targets: (
            binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(1).sum()
        )
    return lambda logits, targets: (logits.float().squeeze(1) - targets).square().sum()


class Scores:
    """Sums over the texts that this rank has judged; `together` makes them those of all ranks."""

    def __init__(self, problem: Problem, labels: int, device: torch.device) -> None:
        self.problem = problem
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # of the loss, of texts
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._counts = torch.zeros(3, labels, dtype=torch.int64, device=device)  # right, found, there, by label
        self._moments = torch.zeros(5, dtype=torch.float64, device=device)  # sums of x, y, xx, yy, xy

    def add(self, logits: torch.Tensor, targets: torch.Tensor, loss: torch.Tensor) -> None:
        """Take a batch's outputs and the sum of its losses."""
        self._loss += torch.stack([loss.double(), loss.new_tensor(len(targets)).double()])
        if self.problem is Problem.REGRESSION:
            x, y = logits.squeeze(1).double(), targets.double()
            self._moments += torch.stack([x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
            return
        if self.problem is Problem.SINGLE_LABEL:
            there = torch.nn.functional.one_hot(targets, self._counts.shape[1]).bool()
            found = torch.nn.functional.one_hot(logits.argmax(1), self._counts.shape[1]).bool()
        else:
            there, found = targets.bool(), logits > IS_LIKELY
        self._right += (there == found).all(1).sum()
        self._counts += torch.stack([(there & found).sum(0), found.sum(0), there.sum(0)])

    def together(self) -> dict[Metric, float]:
        """Return the metrics over all ranks. Call it on all of them."""
        for sums in (self._loss, self._right, self._counts, self._moments):
            dist.all_reduce(sums)
        total, count = self._loss.tolist()
        values = {Metric.LOSS: total / count}
        if self.problem is Problem.REGRESSION:
            moments = self._moments.tolist()
            values |= {Metric.MSE: _mse(moments, count), Metric.PEARSON: _pearson(moments, count)}
        else:
            values |= {Metric.ACCURACY: int(self._right) / count, Metric.F1: _macro_f1(self._counts)}
        return {metric: values[metric] for metric in METRICS[self.problem]}


def _macro_f1(counts: torch.Tensor) -> float:
    """Return the mean of the labels' F1 over labels that are there or were found."""
    right, found, there = counts.double()
    seen = found + there > 0
    return float((2 * right[seen] / (found + there)[seen]).mean()) if seen.any() else 0.0


def _mse(moments: Sequence[float], count: float) -> float:
    _, _, xx, yy, xy = moments
    return max(0.0, (xx + yy - 2 * xy) / count)


def _pearson(moments: Sequence[float], count: float) -> float:
    """Return the correlation; 0 where one side does not vary, and so correlates with nothing."""
    x, y, xx, yy, xy = moments
    spread = (count * xx - x * x) * (count * yy - y * y)
    return (count * xy - x * y) / math.sqrt(spread) if spread > 0 else 0.0
