from hypothesis import given
from hypothesis import strategies as st

from mooring.serving.batcher import coalesce, slices


@given(st.lists(st.tuples(st.integers(0, 4), st.integers())))
def test_every_item_is_in_its_models_group_in_order(waiting: list[tuple[int, int]]) -> None:
    groups = coalesce(waiting)
    for number, items in groups.items():
        assert items == [item for model, item in waiting if model == number]
    assert list(groups) == list(dict.fromkeys(model for model, _ in waiting))


@given(st.lists(st.integers()), st.integers(1, 10))
def test_slices_keep_order_and_size(items: list[int], most: int) -> None:
    cut = list(slices(items, most))
    assert [item for chunk in cut for item in chunk] == items
    assert all(len(chunk) <= most for chunk in cut)
