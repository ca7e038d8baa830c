"""Who may be in memory: records of models, their bytes and leases, and who makes room for whom. No I/O, no clock."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import add, sub
from pathlib import Path
from typing import cast

from . import tally
from .errors import MIB, InsufficientMemoryError, ModelExistsError
from .eviction import Eviction, History, victims
from .histogram import BOUNDS, Histogram
from .lifecycle import State, move

# Before anything was measured: onnxruntime holds about the weights, and half again for prepacked copies.
FIRST_FACTOR = 1.5
# What is learnt stays within these: a model holds its weights, and no library was seen to hold them thrice for long.
LEAST_FACTOR, MOST_FACTOR = 1.0, 3.0
# A session of the smallest model still costs this much.
LEAST_BYTES = MIB // 4
# Weight of the newest measurement in the factor that is learnt.
LEARNING_RATE = 0.3
# So long after its last death a model that ended a host is no suspect any more.
DEATHS_COUNT_FOR_S = 3600.0
# Of a histogram of latencies: the last one has no bound.
BUCKETS = len(BOUNDS) + 1


# The names of models by their state, in the order in which they entered it.
Standing = dict[State, dict[str, None]]


def new_standing() -> Standing:
    """Return the standing of no models."""
    return {state: {} for state in State}


@dataclass(slots=True)
class ModelRecord:
    """What residency knows of one model. A model with leases has requests inside and stays."""

    number: int
    name: str
    url: str
    path: Path
    kind: str
    artifact_bytes: int
    bytes: int
    state: State = State.QUEUED
    reason: str = ""
    was_ready: bool = False
    is_pinned: bool = False
    leases: int = 0
    hits: int = 0
    deaths: int = 0  # in all
    deaths_in_a_row: int = 0  # each of them within the time that the one before counts
    last_death: float = float("-inf")
    last_used: float = 0.0
    load_seconds: float = 0.0
    mapped: tuple[str, ...] = ()  # hashes of the weights it maps
    latency: Histogram = field(default_factory=Histogram)  # from a request's arrival to its answer
    stages: dict[str, Histogram] = field(default_factory=dict)  # what its batches took; empty before the first
    tallies: int = 0  # how often hosts have told of its batches
    booked: list[int] = field(default_factory=lambda: [0] * BUCKETS)  # of its latencies, what `answered` has of them
    computed: float = 0.0  # of the seconds in `stages`, those that were looked at for its copies
    heat: float = float("-inf")  # what sorts by how busy it has been of late
    standing: Standing = field(default_factory=new_standing)  # its table's

    def __post_init__(self) -> None:
        self.standing[self.state][self.name] = None

    def died(self, now: float) -> None:
        """Count a death of a host that had a request of this model inside."""
        self.deaths += 1
        self.deaths_in_a_row = self.recent_deaths(now) + 1
        self.last_death = now

    def recent_deaths(self, now: float) -> int:
        """Return the deaths that still count: all in a row, until the last is long past."""
        return self.deaths_in_a_row if now - self.last_death <= DEATHS_COUNT_FOR_S else 0

    def enter(self, state: State, reason: str = "") -> None:
        """Move to another state. Raises `IllegalMoveError` if the present one does not lead there."""
        left, self.state = self.state, move(self.name, self.state, state)
        del self.standing[left][self.name]
        self.standing[state][self.name] = None
        self.reason = reason
        self.was_ready = self.was_ready or state is State.READY

    @property
    def is_idle(self) -> bool:
        """Whether the model may be taken out of memory now."""
        return self.state is State.READY and self.leases == 0 and not self.is_pinned


@dataclass(slots=True)
class Content:
    """Weights that are mapped, and how many models map them; they are in memory once."""

    bytes: int
    models: int = 0


@dataclass
class ResidencyTable:
    """The models that hold or are promised memory, within a budget of bytes."""

    budget: int
    eviction: Eviction = Eviction.PLATFORM
    history: History = field(default_factory=History)
    records: dict[str, ModelRecord] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    used: int = 0  # bytes held or promised
    contents: dict[str, Content] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)  # what became of loads, and how many went
    standing: Standing = field(default_factory=new_standing)
    _numbers: dict[int, ModelRecord] = field(default_factory=dict)
    # Latencies of all models by bucket, those that are gone too; of those that are here as far as they were booked.
    answered: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    on_departure: Callable[[ModelRecord], None] = lambda _: None
    _loading: dict[str, ModelRecord] = field(default_factory=dict)
    _next_number: int = 1

    @property
    def promised(self) -> int:
        """Bytes that loads under way may still take, which the kernel does not yet count as used."""
        return sum(record.bytes for record in self._loading.values())

    def free(self, available: int) -> int:
        """Return the bytes that can be promised; `available` are those that the machine has, whatever the budget."""
        return min(self.budget - self.used, available - self.promised)

    def estimate(self, kind: str, artifact_bytes: int) -> int:
        """Return the bytes a model will probably need, by what models of its kind have needed."""
        return max(LEAST_BYTES, int(artifact_bytes * self.factors.get(kind, FIRST_FACTOR)))

    def admit(
        self,
        name: str,
        *,
        url: str,
        path: Path,
        kind: str,
        artifact_bytes: int,
        available: int,
        now: float,
        workers: int = 1,
    ) -> tuple[ModelRecord, list[ModelRecord]]:
        """Promise memory to a model, and return its record and the models that must have gone before it is loaded.

        Those are idle ones, and some that are on their way out already, for whoever that was. Raises
        `ModelExistsError`, and `InsufficientMemoryError` when even evicting every idle model would not make room.
        """
        if name in self.records:
            raise ModelExistsError(name)
        needed = self.estimate(kind, artifact_bytes) * workers
        free = self.free(available)
        if needed > free >= artifact_bytes * workers and not any(record.bytes for record in self.records.values()):
            needed = free  # it is alone: nobody could make room, and what is needed is a guess
        going = self._leaving() if needed > free else []
        coming = free + sum(record.bytes for record in going)
        idle = (record for record in self.records.values() if record.is_idle)
        going += cast("list[ModelRecord]", victims(self.eviction, idle, needed - coming, self.history, now))
        if free + sum(record.bytes for record in going) < needed:
            raise self._no_room(name, needed, free)
        number, standing = self._next_number, self.standing
        record = ModelRecord(number, name, url, path, kind, artifact_bytes, needed, last_used=now, standing=standing)
        self._next_number += 1
        self.records[name] = self._loading[name] = self._numbers[record.number] = record
        self.used += needed
        return record, going

    def _leaving(self) -> list[ModelRecord]:
        """Return the models that are on their way out with no request inside: their bytes are as good as free."""
        draining = (self.records[name] for name in self.standing[State.DRAINING])
        return [record for record in draining if not record.leases]

    def _no_room(self, name: str, needed: int, free: int) -> InsufficientMemoryError:
        holders = [record for record in self.records.values() if record.bytes]
        movable = sum(record.bytes for record in holders if not record.is_pinned)
        may_pass = self.eviction is not Eviction.PLATFORM and free + movable >= needed
        return InsufficientMemoryError(name, needed, free, self.budget, len(holders), may_pass=may_pass)

    def measured(self, record: ModelRecord, measured_bytes: int, workers: int = 1) -> None:
        """Correct a record by what its load really took, and learn from it for the next of its kind."""
        if record.artifact_bytes >= MIB:  # smaller ones are all overhead and would teach nonsense
            factor = measured_bytes / record.artifact_bytes / workers
            known = self.factors.get(record.kind, factor)
            # One load is a noisy teacher: heap that was free before is used again, and what it freed still counts.
            learnt = known + LEARNING_RATE * (factor - known)
            self.factors[record.kind] = min(max(learnt, LEAST_FACTOR), MOST_FACTOR)
        self.holds(record, max(LEAST_BYTES, measured_bytes))

    def holds(self, record: ModelRecord, size: int) -> None:
        """Note what a model that is not loading holds now; nothing once its load has failed."""
        self._loading.pop(record.name, None)
        self.used += size - record.bytes
        record.bytes = size

    def expects(self, record: ModelRecord, workers: int) -> None:
        """Book what a model will probably need that is to be loaded once more."""
        self.holds(record, self.estimate(record.kind, record.artifact_bytes) * workers)

    def check_room(self, record: ModelRecord, more: int, available: int) -> None:
        """Raise `InsufficientMemoryError` if a model that is here cannot have so many bytes more."""
        free = self.free(available)
        if more > free:
            raise InsufficientMemoryError(record.name, more, free, self.budget, len(self.records), may_pass=False)

    def left_host(self, record: ModelRecord, others: int) -> None:
        """Note that a model has left one host and lies in so many others; it held as much in each."""
        self.holds(record, record.bytes * others // (others + 1))

    def maps(self, record: ModelRecord, weights: Mapping[str, int]) -> None:
        """Note which weights, by hash of their content, a model maps now; each counts once for all who map it."""
        for name, size in weights.items():
            content = self.contents.setdefault(name, Content(size))
            content.models += 1
            if content.models == 1:
                self.used += size
        for name in record.mapped:
            content = self.contents[name]
            content.models -= 1
            if not content.models:
                self.used -= content.bytes
                del self.contents[name]
        record.mapped = tuple(weights)

    def remove(self, record: ModelRecord) -> None:
        """Forget a model and take back its bytes."""
        if self.records.get(record.name) is record:
            self.holds(record, 0)
            self.maps(record, {})
            self.book(record)
            self.on_departure(record)
            del self.records[record.name], self.standing[record.state][record.name]
            del self._numbers[record.number]

    def book(self, record: ModelRecord) -> int:
        """Count what a model has answered since the last time among the answers of all; returns how many there were."""
        fresh = list(map(sub, record.latency.counts, record.booked))
        self.answered = list(map(add, self.answered, fresh))
        record.booked = [*record.latency.counts]
        return sum(fresh)

    def tallied(self, told: bytes) -> None:
        """Add what a host has counted of its models."""
        for number, counted in tally.read(told).items():
            record = self._numbers.get(number)
            if record is not None:
                record.tallies += 1
                record.stages = record.stages or tally.new_histograms()
                for name, (total, *counts) in counted.items():
                    record.stages[name].add(total, counts)
