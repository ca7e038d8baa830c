"""Runs of waiting requests, cut to the size that a model takes."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.serving.batcher import slices


@given(st.lists(st.integers()), st.integers(1, 10))
def test_slices_keep_order_and_size(items: list[int], most: int) -> None:
    cut = list(slices(items, most))
    assert [item for chunk in cut for item in chunk] == items
    assert all(len(chunk) <= most for chunk in cut)
