"""Batches of a channel that is read from front to back: the same for any number of ranks and workers, and resumable.

The order of samples is that of the stream. A batch of the whole run is the next so many of them, of which each rank
takes its share, so that the position, which counts samples of all ranks, is enough to go on from.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mooring.contract.errors import MooringError
from mooring.training.sampler import DataPosition
from mooring.training.stop import current_stop

from .passes import Passes
from .read_ahead import StopAskedError
from .samples import Raw
from .shares import Share
from .shuffle import shuffle_stream

logger = logging.getLogger(__name__)

# What a rank says before each batch; all go on as the lowest says.
STOPPING, ENDED, HAS_BATCH = range(3)


class ShareOfBatches(IterableDataset[Any]):
    """A rank's share of every batch from `position` to the end of the epoch. A loader's workers take turns."""

    def __init__(
        self,
        passes: Passes,
        batch_size: int,
        position: DataPosition,
        share: Share,
        *,
        seed: int,
        shuffle: int,
        drop_last: bool,
        collate: Callable[[list[Any]], Any],
    ) -> None:
        self._passes = passes
        self._batch_size = share.of(batch_size)
        self._position = position
        self._share = share
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._collate = collate
        self._open: Generator[Any, None, None] | None = None

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            self._open = self._parsed(0, 1)
            yield from self._open
            return
        try:
            yield from self._parsed(worker.id, worker.num_workers)
        except MooringError as error:
            yield Failure(type(error), error.args, vars(error))

    def close(self) -> None:
        """Close what the iteration in this process still reads."""
        if self._open is not None:
            self._open.close()

    def _parsed(self, turn: int, turns: int) -> Generator[Any, None, None]:
        with closing(self._batches()) as batches:
            for number, batch in enumerate(batches):
                # Batches rather than samples are dealt among workers, whose loader gives them in the order of one.
                if number % turns == turn:
                    mine = batch[self._share.index :: self._share.count]
                    if mine:
                        yield self._collate([self._passes.sample_format.parse(raw) for raw in mine])

    def _batches(self) -> Generator[list[Raw], None, None]:
        """Yield the batches that all ranks which see this stream share."""
        position = self._position
        with (
            closing(self._passes.samples(position.epoch)) as samples,
            closing(shuffle_stream(samples, self._shuffle, self._seed, position.epoch)) as order,
        ):
            consumed = self._share.of(position.consumed)
            next(islice(order, consumed, consumed), None)
            while batch := list(islice(order, self._batch_size)):
                if len(batch) == self._batch_size or not self._drop_last:
                    yield batch


@dataclass(frozen=True)
class Failure:
    """An error on its way out of a worker: torch's loader would make another one of it."""

    kind: type[MooringError]
    arguments: tuple[Any, ...]
    facts: dict[str, Any]

    def error(self) -> MooringError:
        """Return the error as it was."""
        error = self.kind.__new__(self.kind)
        error.args = self.arguments
        vars(error).update(self.facts)
        return error


class Batches:
    """An epoch's batches from where the position stands, for a loop that advances the position.

    Iterate on all ranks alike. All get equally many batches: where their data ends at different times, they ask each
    other before each batch, and the first end is the end for all.
    """

    def __init__(self, data: ShareOfBatches, group: dist.ProcessGroup | None, options: dict[str, Any]) -> None:
        self._data = data
        self._group = group
        self._options = options
        self.is_exhausted = False

    def __iter__(self) -> Generator[Any, None, None]:
        self.is_exhausted = False
        batches = self._loaded()
        try:
            while True:
                state, batch = self._next(batches)
                agreed = self._agree(state)
                if agreed != HAS_BATCH:
                    break
                yield batch
            self._end(agreed, has_more=state == HAS_BATCH)
        finally:
            self._data.close()

    def _loaded(self) -> Iterator[Any]:
        """Return the batches, by way of torch's loader if there is anything for it to do."""
        if not any(self._options.values()):
            return iter(self._data)
        generator = torch.Generator()  # without one, torch's loader draws from the generator that dropout uses
        return iter(DataLoader(self._data, None, generator=generator, **self._options))

    def _next(self, batches: Iterator[Any]) -> tuple[int, Any]:
        try:
            batch = next(batches)
        except StopIteration:
            return ENDED, None
        except StopAskedError:
            return STOPPING, None
        if isinstance(batch, Failure):
            raise batch.error()
        return HAS_BATCH, batch

    def _agree(self, state: int) -> int:
        if self._group is None:
            return state
        lowest = torch.tensor(state)
        dist.all_reduce(lowest, dist.ReduceOp.MIN, group=self._group)
        return int(lowest)

    def _end(self, agreed: int, *, has_more: bool) -> None:
        self.is_exhausted = agreed == ENDED
        stop = current_stop()
        if agreed == STOPPING and self._is_known_to_all and stop is not None:
            stop.agree()
        elif agreed == ENDED and has_more:
            logger.info("The epoch ends before this rank's data does: another rank has no whole batch left.")

    @property
    def _is_known_to_all(self) -> bool:
        return self._group is not None or not dist.is_initialized() or dist.get_world_size() == 1
