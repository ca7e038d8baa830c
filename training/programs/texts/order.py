"""The order of texts in an epoch: batches of about one length, which need little padding, in an order of chance."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mooring.training.sampler import GlobalBatchSampler

# Of so many batches, drawn at random, the texts are sorted: enough for like lengths, few enough for chance to mix.
WINDOW = 50


class LengthGroupedSampler(GlobalBatchSampler):
    """Batches of texts whose lengths are alike."""

    def __init__(self, lengths: NDArray[np.int64], *arguments: Any, **options: Any) -> None:
        super().__init__(len(lengths), *arguments, **options)
        self._lengths = torch.from_numpy(lengths)

    def _permutation(self) -> list[int]:
        """Return whole batches; what is left out of them is as much a matter of chance as without lengths."""
        drawn = torch.tensor(super()._permutation())[: len(self) * self.batch_size]
        windows = drawn.split(WINDOW * self.batch_size)  # type: ignore[no-untyped-call]
        grouped = torch.cat([window[self._lengths[window].argsort(stable=True)] for window in windows])
        by_chance = drawn[: len(self)].argsort()  # of numbers that were drawn by chance, so one more permutation
        order: list[int] = grouped.view(-1, self.batch_size)[by_chance].flatten().tolist()
        return order
