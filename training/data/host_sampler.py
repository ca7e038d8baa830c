"""Batches of rows where hosts have different rows: each host permutes its own, and all give as much to every batch."""

from collections.abc import Iterator

from mooring.training.sampler import DataPosition, GlobalBatchSampler

from .shares import Share


class HostBatchSampler(GlobalBatchSampler):
    """This rank's share of its host's part of every batch, for as many batches as the host with fewest rows has.

    For DataLoader's `batch_sampler`, as the sampler that it extends.
    """

    def __init__(
        self, length: int, batch_size: int, position: DataPosition, share: Share, *, seed: int, batches: int
    ) -> None:
        part = share.of(batch_size)
        super().__init__(length, part, position, seed=seed, rank=share.index, world_size=share.count)
        self.run_batch_size = batch_size
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        done = self.position.consumed // self.run_batch_size
        order = self._permutation()
        for start in range(done * self.batch_size, self.batches * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.world_size]

    @property
    def is_exhausted(self) -> bool:
        """Whether the epoch has no whole batch left."""
        return self.position.consumed + self.run_batch_size > self.batches * self.run_batch_size

    def __len__(self) -> int:
        return self.batches
