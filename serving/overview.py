"""All models together, kept up to date by looking only at those that were asked since: ten thousand idle ones cost
next to nothing. A look is bounded, too; what it could not take in, the next one does.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import chain, islice
from math import exp, log, log1p, log2
from operator import attrgetter

from .lifecycle import State
from .residency import ResidencyTable

# Models whose counts one look takes in. Where more have been asked, the others wait for the next.
MOST_LOOKED_AT = 100
# Models that are ranked by how busy they are; of the others it is known that they are less so.
MOST_RANKED = 400
# Requests of so long ago weigh half as much.
HALF_LIFE_S = 60.0
LN2 = log(2)
LEASES = attrgetter("leases")


class Overview:
    """What the models of a table do, for whoever looks about once a second."""

    def __init__(self, table: ResidencyTable) -> None:
        self._table = table
        self._looked = float("-inf")
        self._due: dict[str, None] = {}  # names to look at, the longest due first
        self._ranked: list[str] = []  # the busiest first
        self._has_unranked = False

    def look(self) -> int:
        """Take in what models have answered since; returns how many requests are inside."""
        records = self._table.records
        recent, self._looked = self._table.history.recent(self._looked)
        self._due |= dict.fromkeys(filter(records.__contains__, recent))
        looked_at = list(islice(self._due, MOST_LOOKED_AT))
        for name in looked_at:
            del self._due[name]
            record = records.get(name)
            if record is None:  # its answers were booked when it went
                continue
            record.heat = heated(record.heat, self._table.book(record), record.last_used)
            if record.leases:
                self._due[name] = None
        if looked_at:
            self._rank(looked_at)
        return sum(map(LEASES, filter(None, map(records.get, self._due))))

    def busiest(self, most: int, find: str = "", state: State | None = None) -> tuple[int, list[str]]:
        """Return how many models have `find` in their name and are in `state`, and the names of the busiest of them."""
        found: Mapping[str, object] = self._table.records if state is None else self._table.standing[state]
        if find:
            wanted = find.casefold()
            found = dict.fromkeys(name for name in found if wanted in name.casefold())
        return len(found), list(islice(self._in_order(found), most))

    def _in_order(self, names: Mapping[str, object]) -> Iterator[str]:
        ranked = dict.fromkeys(name for name in self._ranked if name in names)
        return chain(ranked, (name for name in names if name not in ranked))

    def _rank(self, changed: Iterable[str]) -> None:
        """Put models whose heat has changed among those that are ranked."""
        records = self._table.records
        candidates = dict.fromkeys(name for name in chain(self._ranked, changed) if name in records)
        if self._has_unranked and len(candidates) < MOST_RANKED // 2:  # so many have gone since
            candidates = dict.fromkeys(records)
        self._has_unranked = self._has_unranked or len(candidates) > MOST_RANKED
        self._ranked = nlargest(MOST_RANKED, candidates, key=lambda name: records[name].heat)


def heated(heat: float, requests: int, when: float) -> float:
    """Return a measure of how busy a model is after more requests: of two, the higher is the busier at any time.

    It is the logarithm of a sum over all requests: two to the power of each one's time in half-lives. New ones weigh
    more instead of old ones less, so that the measures of models that nobody asks need no change.

    >>> heated(heated(float("-inf"), 10, when=0), 1, when=60) < heated(float("-inf"), 7, when=60)
    True
    """
    if requests <= 0:
        return heat
    added = log2(requests) + when / HALF_LIFE_S
    high, low = max(heat, added), min(heat, added)
    return high + log1p(exp((low - high) * LN2)) / LN2
