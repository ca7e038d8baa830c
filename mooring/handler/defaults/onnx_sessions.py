"""The sessions of an ONNX model: one whose operators have all threads, and for hot models one whose threads share rows.

Threads within an operator wait for each other at its end, so one that loses its core for a moment, to the front door
say, holds up all. Callers of one thread each, that take a few rows of a batch at a time, wait once a batch: ResNet-18
beside a front door that moves its pictures answers 15 % more, MiniLM 6 %. A row that is alone needs the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]

# Larger pieces were no faster a row, and more threads end early.
MOST_PIECE_ROWS = 4
# Where threads would be busy for a smaller part of the time than this, operators had better share them.
LEAST_BUSY = 0.8


class Sessions:
    """Runs a model. `by_rows` is a session of one thread, for models whose rows are independent.

    The callers end with the last reference: another thread may still be running what a change of tier replaces.
    """

    def __init__(
        self, whole: ort.InferenceSession, by_rows: ort.InferenceSession | None = None, threads: int = 1
    ) -> None:
        self.whole = whole
        self._threads = threads
        self._run = _runner(whole)
        self._run_piece = _runner(by_rows or whole)
        self._callers = None if by_rows is None else ThreadPoolExecutor(threads, thread_name_prefix="rows")

    @property
    def shares_rows(self) -> bool:
        """Whether threads share the rows of a batch."""
        return self._callers is not None

    def run(self, outputs: Sequence[str], feeds: Feeds, rows: int = 1) -> list[Array]:
        """Return the outputs for inputs of so many rows. Raises what onnxruntime raises."""
        callers = self._callers
        size = 0 if callers is None else piece_rows(rows, self._threads)
        # Inputs that share no first dimension are not for us to cut.
        if callers is None or not size or any(len(array) != rows for array in feeds.values()):
            return self._run(outputs, feeds, None)
        begins = range(0, rows, size)
        pieces = [{name: array[begin : begin + size] for name, array in feeds.items()} for begin in begins]
        parts = callers.map(self._run_piece, repeat(outputs), pieces, repeat(None))
        return [np.concatenate(output) for output in zip(*parts, strict=True)]


@lru_cache(maxsize=1024)
def piece_rows(rows: int, threads: int) -> int:
    """Return how many rows each piece of a batch has, so that threads end together; 0 where they would not.

    >>> piece_rows(16, 2), piece_rows(2, 2), piece_rows(3, 2), piece_rows(20, 16), piece_rows(1, 2)
    (4, 1, 0, 0, 0)
    """

    def longest(size: int) -> int:
        """Return the rows that the busiest thread has."""
        return math.ceil(math.ceil(rows / size) / threads) * size

    size = min(range(MOST_PIECE_ROWS, 0, -1), key=longest)
    return size if rows >= LEAST_BUSY * threads * longest(size) else 0


def _runner(session: ort.InferenceSession) -> Callable[..., list[Array]]:
    """Return what runs a session, without the Python around it if that can be had.

    That checks the inputs' names, as the reader did before: a third of the time that a tiny model takes.
    """
    run: Callable[..., list[Array]] = getattr(session, "_sess", session).run
    return run
