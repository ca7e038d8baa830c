"""Where a run is in its data, counted over all ranks, and each rank's share of every batch derived from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


@dataclass
class DataPosition:
    """How far the run has come: whole epochs, and samples of the present one that all ranks together have used.

    It says nothing of ranks, so it holds for any number of them.
    """

    epoch: int = 0
    consumed: int = 0

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the position as a checkpoint holds it."""
        return {"position": torch.tensor([self.epoch, self.consumed])}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take a checkpoint's position."""
        self.epoch, self.consumed = (int(number) for number in state["position"])


class GlobalBatchSampler(Sampler[list[int]]):
    """Batches of the whole run, of which each rank is given its share; for DataLoader's `batch_sampler`.

    An epoch is one permutation that depends on seed and epoch only. Iterating begins where `position` stands; the
    loop advances the position, since a loader's workers read ahead. The samples after the last whole batch are left
    out; another permutation leaves out others.
    """

    def __init__(
        self, length: int, batch_size: int, position: DataPosition, *, seed: int, rank: int, world_size: int
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.position = position
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        order = self._permutation()
        last = self.length - self.batch_size
        for start in range(self.position.consumed, last + 1, self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.world_size]

    def _permutation(self) -> list[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed * 1_000_003 + self.position.epoch)
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order

    @property
    def is_exhausted(self) -> bool:
        """Whether the epoch has no whole batch left."""
        return self.position.consumed + self.batch_size > self.length

    def __len__(self) -> int:
        return self.length // self.batch_size


def data_loader(data: Dataset[Any], sampler: GlobalBatchSampler, **options: Any) -> DataLoader[Any]:
    """Return torch's loader of a sampler's batches; `options` are its own, such as `num_workers`.

    It has a generator of its own. Without one, each beginning of an epoch draws from the generator that dropout uses,
    and a resumed run, which begins an epoch once more than an uninterrupted one, would drop other units.
    """
    generator = torch.Generator()
    generator.manual_seed(sampler.seed)
    return DataLoader(data, batch_sampler=sampler, generator=generator, **options)
