"""Orders that depend on seed and epoch only, so that a resumed run has the order of the run it goes on with."""

import random
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def generator(seed: int, epoch: int) -> random.Random:
    """Return a generator for an epoch, as the sampler of random access has one."""
    return random.Random(seed * 1_000_003 + epoch)


def shuffled(items: Sequence[T], seed: int, epoch: int) -> list[T]:
    """Return items in the order of an epoch."""
    order = list(items)
    generator(seed, epoch).shuffle(order)
    return order


def shuffle_stream(samples: Iterable[T], size: int, seed: int, epoch: int) -> Generator[T, None, None]:
    """Yield samples in another order, of which at most `size` are held: each change of place is about that far.

    What is held in the end comes in an order of its own. A size of 0 or 1 leaves the order as it is.
    """
    if size <= 1:
        yield from samples
        return
    chance = generator(seed, epoch)
    held: list[T] = []
    for sample in samples:
        if len(held) < size:
            held.append(sample)
            continue
        place = chance.randrange(size)
        yield held[place]
        held[place] = sample
    chance.shuffle(held)
    yield from held
