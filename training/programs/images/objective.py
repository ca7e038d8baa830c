"""What training makes small and what it reports, for images of one class and for images of any number of them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mooring.contract.errors import HyperparameterError

from .settings import Settings


@dataclass(frozen=True)
class Objective:
    """The loss and what counts as right. `weights` are those of classes that an image has, over those it has not."""

    is_multi_label: bool = False
    weights: torch.Tensor | None = None
    top_k: int | None = None

    @classmethod
    def of(cls, settings: Settings, labels: NDArray[np.float32] | None) -> "Objective":
        """Return the objective that settings ask for; `labels` are all training images', None for those of a pipe.

        Raises `HyperparameterError` for weights that only all labels would tell.
        """
        weights = None
        if settings.multi_label and settings.use_weighted_loss:
            if labels is None:
                problem = "expected 0, since a pipe does not tell all labels before training; File mode does"
                raise HyperparameterError([f"Hyperparameter 'use_weighted_loss' is 1; {problem}."])
            weights = class_weights(labels)
        return cls(settings.multi_label, weights, None if settings.multi_label else settings.top_k)

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the images' losses."""
        if not self.is_multi_label:
            return cross_entropy(logits, labels, reduction="sum")
        weights = None if self.weights is None else self.weights.to(logits.device)
        each = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
        return each.mean(1).sum()

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return how many images are right. Of several classes, each one that is right is a part of an image."""
        if not self.is_multi_label:
            return (logits.argmax(1) == labels).sum()
        return ((logits > 0) == (labels > 0)).double().mean(1).sum()

    def among_first(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return for how many images the right class is among the `top_k` likeliest."""
        if self.top_k is None:
            return torch.zeros((), device=logits.device)
        return (logits.topk(self.top_k).indices == labels[:, None]).sum()


def class_weights(labels: NDArray[np.float32]) -> torch.Tensor:
    """Return how many images have not a class for each that has it; 1 for a class that no image has.

    >>> class_weights(np.array([[1, 0], [0, 0], [1, 0], [0, 0], [0, 0]], np.float32)).tolist()
    [1.5, 1.0]
    """
    with_class = torch.from_numpy(labels.sum(0, dtype=np.float64))
    without = len(labels) - with_class
    return torch.where(with_class > 0, without / with_class.clamp(min=1), 1.0).float()


class Tally:
    """Counts what images came to, on the device that computes, so that counting waits for nothing."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self._objective = objective
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)  # images, loss, right, among the first k

    @torch.no_grad()
    def add(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Count a batch; `loss` is the sum of its images'."""
        right, first = self._objective.right(logits, labels), self._objective.among_first(logits, labels)
        images = torch.full_like(self._sums[0], len(labels))
        self._sums += torch.stack([images, loss.double(), right.double(), first.double()])

    def accuracy(self) -> float:
        """Return the share of this rank's images that were right so far."""
        images, _, right, _ = self._sums.tolist()
        return float(right / images)

    def of_all_ranks(self) -> dict[str, float]:
        """Return accuracy and loss over all ranks, by the built-in's names. Call it on all ranks."""
        sums = self._sums.clone()
        dist.all_reduce(sums)
        images, loss, right, first = sums.tolist()
        if images == 0:
            return {}
        results = {"accuracy": right / images, "cross-entropy": loss / images}
        if self._objective.top_k is not None:
            results[f"top_k_accuracy_{self._objective.top_k}"] = first / images
        return results
