"""Counts of models as Prometheus is told them: the busiest by name, the others together, and none ever falls.

What a model counts is booked to the account it has at that time and stays there when the model moves to another
account, or goes: a counter that falls looks like a restart, and one that takes over another's past like a burst.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from operator import add, sub

from .residency import ModelRecord

OTHERS = "(others)"
# Names whose counts are kept after their models went. One that comes back later than that begins anew.
MOST_NAMES = 1000

# What is counted -> numbers that only rise.
Counts = dict[str, list[float]]


class Ledger:
    """The accounts of models, of which so many have a name."""

    def __init__(self, most: int, read: Callable[[ModelRecord], Mapping[str, Sequence[float]]]) -> None:
        self._most = most
        self._read = read
        self._named: OrderedDict[str, Counts] = OrderedDict()
        self._gone: set[str] = set()  # names whose last counts were not told yet
        self._others: Counts = {}
        # By a model's number: how far it is booked, and to which account.
        self._booked: dict[int, tuple[object, Mapping[str, Sequence[float]], Counts]] = {}

    def told(self, busiest: Sequence[ModelRecord]) -> list[tuple[str, Counts]]:
        """Book what models have counted, the busiest of them first, and return the accounts that are to be told."""
        named = {record.name: self._account(record.name) for record in busiest[: self._most]}
        for record in busiest:
            self._book(record, named.get(record.name, self._others))
        gone = [(name, self._named[name]) for name in self._gone - named.keys() if name in self._named]
        self._gone.clear()
        return [*named.items(), *gone, (OTHERS, self._others)]

    def close(self, record: ModelRecord) -> None:
        """Book the last of a model that goes."""
        account = self._booked[record.number][2] if record.number in self._booked else self._others
        self._book(record, account)
        del self._booked[record.number]
        if account is not self._others:
            self._gone.add(record.name)

    def _account(self, name: str) -> Counts:
        account = self._named.setdefault(name, {})
        self._named.move_to_end(name)
        if len(self._named) > MOST_NAMES:
            self._named.popitem(last=False)
        return account

    def _book(self, record: ModelRecord, account: Counts) -> None:
        # Answers are requests less those under way; of ten thousand models few have changed.
        mark = (record.hits, record.leases, record.tallies)
        known, before, its_account = self._booked.get(record.number, (None, {}, account))
        if mark == known and its_account is account:
            return
        now = before if mark == known else self._read(record)
        for what, counts in now.items():
            fresh = list(map(sub, counts, before[what])) if what in before else counts
            account[what] = list(map(add, account[what], fresh)) if what in account else [*fresh]
        self._booked[record.number] = (mark, now, account)
