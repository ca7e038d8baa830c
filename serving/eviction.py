"""Who makes room when memory is short. Pure: no I/O, and time is passed in.

`REUSE` evicts the model that will be wanted again last, judged by how often it has been wanted so far. Plain least
recently used goes to a standstill when more models than fit are used in turn: no request finds its model.
docs/decisions/0005 has the figures of both.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol

# Weight of the newest interval between two uses in their mean.
LEARNING_RATE = 0.3
# Names that are remembered after their models have gone: without memory every reload looks like a first use.
MOST_NAMES = 100_000


class Eviction(Enum):
    """Who makes room when memory is short."""

    PLATFORM = "platform"  # we answer "no room" and the platform unloads
    REUSE = "reuse"  # the idle model goes that will be wanted again last
    LRU = "lru"  # the least recently used idle model goes


class Evictable(Protocol):
    """What an eviction policy knows of a model."""

    name: str
    bytes: int
    last_used: float


class History:
    """When models were last used, and how far apart their uses have been, also of models that have gone."""

    def __init__(self) -> None:
        self._uses: OrderedDict[str, tuple[float, float | None]] = OrderedDict()

    def used(self, name: str, now: float) -> None:
        """Note a use."""
        uses = self._uses
        known = uses.get(name)
        if known is None:
            uses[name] = (now, None)
            if len(uses) > MOST_NAMES:
                uses.popitem(last=False)
            return
        last, mean = known
        if last == now:
            return  # uses within one tick of the clock, a millisecond, count as one
        interval = now - last
        uses[name] = (now, interval if mean is None else mean + LEARNING_RATE * (interval - mean))
        uses.move_to_end(name)

    def recent(self, since: float) -> tuple[list[str], float]:
        """Return the names used at or after a time, and the time of the last use of all."""
        names = []
        newest = next(reversed(self._uses.values()), (since, None))[0]
        for name, (last, _) in reversed(self._uses.items()):
            if last < since:
                break
            names.append(name)
        return names, newest

    def wait(self, name: str, now: float) -> tuple[bool, float]:
        """Return what sorts by the time until a model is probably wanted again; seen once means probably never.

        Between one that comes in turn (due when its interval is over) and one that comes at random (never nearer):
        half the age counts. One that is overdue is wanted less and less.
        """
        last, mean = self._uses.get(name, (now, None))
        age = now - last
        if mean is None:
            return True, age
        return False, mean - age / 2 if age < mean else age


def victims(
    eviction: Eviction, idle: Iterable[Evictable], missing: int, history: History, now: float
) -> Sequence[Evictable]:
    """Return the idle models whose going frees `missing` bytes, or as near as possible, in the order they should go."""
    if eviction is Eviction.PLATFORM or missing <= 0:
        return []
    if eviction is Eviction.LRU:
        ranked = sorted(idle, key=lambda record: record.last_used)
    else:
        ranked = sorted(idle, key=lambda record: history.wait(record.name, now), reverse=True)
    chosen = []
    for record in ranked:
        chosen.append(record)
        missing -= record.bytes
        if missing <= 0:
            break
    return chosen
