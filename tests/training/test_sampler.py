"""Every sample once an epoch, for any number of ranks, wherever a run was interrupted."""

from itertools import chain

import pytest

from mooring.training.sampler import DataPosition, GlobalBatchSampler


def batches(position: DataPosition, world_size: int, length: int = 100, batch: int = 12) -> list[list[int]]:
    """The batches of the whole run, put together from the ranks' shares."""
    ranks = [
        GlobalBatchSampler(length, batch, position, seed=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return [sorted(chain(*shares)) for shares in zip(*ranks, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_each_batch_without_overlap(world_size: int) -> None:
    assert batches(DataPosition(), world_size) == batches(DataPosition(), 1)


def test_epoch_uses_each_sample_at_most_once_and_leaves_out_the_last_part_of_a_batch() -> None:
    used = list(chain(*batches(DataPosition(), 2)))
    assert len(used) == len(set(used)) == 96


def test_other_epoch_has_another_order() -> None:
    assert batches(DataPosition(epoch=1), 1) != batches(DataPosition(epoch=0), 1)


def test_other_number_of_ranks_goes_on_where_the_run_stopped() -> None:
    whole = batches(DataPosition(), 2)
    assert whole[:3] + batches(DataPosition(consumed=36), 4)[:2] + batches(DataPosition(consumed=60), 3) == whole


def test_position_survives_its_checkpoint() -> None:
    restored = DataPosition()
    restored.load_state_dict(DataPosition(4, 36).state_dict())
    assert restored == DataPosition(4, 36)


def test_epoch_is_exhausted_when_no_whole_batch_is_left() -> None:
    sampler = GlobalBatchSampler(100, 12, DataPosition(consumed=84), seed=0, rank=0, world_size=1)
    assert not sampler.is_exhausted
    sampler.position.consumed = 96
    assert sampler.is_exhausted
