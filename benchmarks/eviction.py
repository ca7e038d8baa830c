"""Which model should make room: the policies of `serving/eviction.py` on made-up streams of requests.

Run as `python -m benchmarks.eviction`. Pure simulation with a fixed seed: room for a hundred models of one size, and
the share of requests that find their model in memory.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from mooring.serving.eviction import Eviction, History, victims

ROOM = 100


@dataclass
class Held:
    """A model in memory."""

    name: str
    last_used: float
    bytes: int = 1


def hit_rate(eviction: Eviction, requests: list[int]) -> float:
    """Return the share of requests that find their model."""
    history = History()
    held: dict[str, Held] = {}
    hits = 0
    for now, number in enumerate(requests):
        name = str(number)
        history.used(name, now)
        if name in held:
            hits += 1
            held[name].last_used = now
            continue
        if len(held) >= ROOM:
            for victim in victims(eviction, held.values(), 1, history, now):
                del held[victim.name]
        held[name] = Held(name, now)
    return hits / len(requests)


def zipf(models: int, count: int, exponent: float, generator: random.Random) -> list[int]:
    """Return requests of which few models get most."""
    weights = [1 / (rank + 1) ** exponent for rank in range(models)]
    return generator.choices(range(models), weights, k=count)


def streams() -> Iterator[tuple[str, list[int]]]:
    """Yield the streams with their names."""
    generator = random.Random(1)
    for factor in (1.25, 2, 4):
        models = int(ROOM * factor)
        yield f"in turn, {factor:g} x what fits", [index % models for index in range(models * 30)]
    disturbed = ([n if generator.random() < 0.8 else generator.randrange(200) for n in range(200)] for _ in range(40))
    yield "in turn, a fifth at random", [number for round_of in disturbed for number in round_of]
    for exponent in (1.0, 0.7):
        yield f"Zipf {exponent:g}, 4 x what fits", zipf(4 * ROOM, 12_000, exponent, generator)
    early = zipf(4 * ROOM, 6000, 1.0, generator)
    late = [4 * ROOM - 1 - number for number in zipf(4 * ROOM, 6000, 1.0, generator)]
    yield "Zipf 1, whose favourites change", early + late
    scanned = zipf(2 * ROOM, 12_000, 1.0, generator)
    yield "Zipf 1, a third asked once", [n if generator.random() < 0.7 else 1000 + i for i, n in enumerate(scanned)]
    yield "any of 2 x what fits", [generator.randrange(2 * ROOM) for _ in range(8000)]
    yield "90 at a time, others later", [(i // 2000) * 90 + generator.randrange(90) for i in range(12_000)]
    turns = [generator.randrange(20) if generator.random() < 0.5 else 100 + index % 200 for index in range(12_000)]
    yield "20 hot, 200 in turn", turns


def main() -> None:
    """Print the table."""
    print(f"{'requests':32} {'lru':>8} {'reuse':>8}")
    for name, requests in streams():
        rates = [hit_rate(eviction, requests) for eviction in (Eviction.LRU, Eviction.REUSE)]
        print(f"{name:32} {rates[0]:8.1%} {rates[1]:8.1%}")


if __name__ == "__main__":
    main()
