"""Which waiting requests run together: what is queued when the host is free, so that an idle host never waits."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def coalesce(waiting: Iterable[tuple[int, Item]]) -> dict[int, list[Item]]:
    """Group waiting items by model number, models in order of their first item, items in order of arrival."""
    groups: dict[int, list[Item]] = {}
    for number, item in waiting:
        group = groups.get(number)
        if group is None:
            groups[number] = [item]
        else:
            group.append(item)
    return groups


def slices(items: list[Item], most: int) -> Iterator[list[Item]]:
    """Cut a group into runs of at most `most` items."""
    if len(items) <= most:
        yield items
        return
    iterator = iter(items)
    while chunk := list(islice(iterator, most)):
        yield chunk
