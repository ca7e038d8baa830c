"""What is queued for a model when its host is free, cut into batches: so an idle host never waits."""

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def slices(items: list[Item], most: int) -> Iterator[list[Item]]:
    """Cut a group into runs of at most `most` items."""
    if len(items) <= most:
        yield items
        return
    iterator = iter(items)
    while chunk := list(islice(iterator, most)):
        yield chunk
