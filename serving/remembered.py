"""Bytes that repeat, such as the header lines of a client's requests, are read once."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

from .heads import MOST_BYTES

T = TypeVar("T")

MOST_REMEMBERED = 1024


def remembered(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Return `read` with a memory for what it was given last; what is long never comes again, and is not kept."""
    recall = lru_cache(maxsize=MOST_REMEMBERED)(read)

    @wraps(read)
    def read_or_recall(lines: bytes) -> T:
        return recall(lines) if len(lines) <= MOST_BYTES else read(lines)

    return read_or_recall
