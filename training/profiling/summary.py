"""A profile read back from the files of its ranks, whole or cut off, and folded into what a report shows."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mooring.contract.errors import UserCodeError
from mooring.training.json_lines import read_rows

from .steps import DATA, OTHER, TimedStep, class_seconds

RANK_FILES = "rank-*.jsonl"
LAST_BYTES = 1 << 10
# A file that was damaged may hold any number; beyond these it is none that a run could have had.
LAST_TIME, MOST, MOST_CLASS = 1e11, 1e18, 5000


class ProfileMissingError(UserCodeError):
    """There are no ranks' files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"{folder} holds no profile: no file rank-….jsonl with a beginning. A training script makes one with "
            "`with Profiler() as profiler`, unless profilerconfig.json switches it off."
        )


@dataclass
class Stretch:
    """Steps that came one after the other."""

    at: float
    count: int
    phases: dict[str, float]
    classes: dict[int, int]
    slowest: list[TimedStep]
    is_first: bool = False

    @property
    def seconds(self) -> float:
        """How long they took together."""
        return sum(self.phases.values())


@dataclass(frozen=True)
class HostSample:
    """What a host used: the share of its cores, bytes of memory, bytes a second both ways, and each GPU."""

    at: float
    cpu: float
    memory: float
    disk: tuple[float, float]
    network: tuple[float, float]
    gpus: tuple[tuple[float, float, float], ...]  # the share of time that it computes, used and all bytes

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "HostSample":
        """Return a row that was read back. Raises `ValueError` and others for a damaged one."""
        disk, network = (_pair(row.get(name, (0, 0))) for name in ("disk", "network"))
        gpus = tuple((_amount(busy), _amount(used), _amount(total)) for busy, used, total in row.get("gpus", ()))
        return cls(_time(row["at"]), _amount(row["cpu"]), _amount(row["memory"]), disk, network, gpus)


@dataclass
class RankProfile:
    """What one rank left."""

    facts: dict[str, Any]
    attempts: int = 1
    has_ended: bool = False
    until: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    samples: list[HostSample] = field(default_factory=list)
    peak_memory: float = 0.0  # its own
    outside: dict[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Its number among all ranks."""
        return int(self.facts["rank"])

    @property
    def steady(self) -> list[Stretch]:
        """Its steps without the first of each attempt, unless there are no others."""
        return [each for each in self.stretches if not each.is_first] or self.stretches

    @property
    def count(self) -> int:
        """How many steps it did."""
        return sum(each.count for each in self.stretches)

    def mean_phases(self) -> dict[str, float]:
        """Return the seconds of each phase in a mean step."""
        return mean_phases(self.steady)


@dataclass
class Profile:
    """What all ranks left, in their order."""

    ranks: list[RankProfile]

    @property
    def stretches(self) -> list[Stretch]:
        """The steady steps of all ranks."""
        return [each for rank in self.ranks for each in rank.steady]

    @property
    def samples(self) -> list[HostSample]:
        """What was sampled of all hosts."""
        return [sample for rank in self.ranks for sample in rank.samples]

    @property
    def began(self) -> float:
        """When the first rank began, in seconds since the epoch."""
        return min(float(rank.facts["at"]) for rank in self.ranks)

    @property
    def ended(self) -> float:
        """When the last record was made."""
        return max(max(rank.until for rank in self.ranks), self.began + 1e-3)

    def phases(self) -> dict[str, float]:
        """Return the seconds of each phase in a mean step, in the order of the loop; what is in no phase comes last."""
        phases = mean_phases(self.stretches)
        return dict(sorted(phases.items(), key=lambda entry: (entry[0] != DATA, entry[0] == OTHER)))

    def percentile(self, share: float) -> float:
        """Return the time that this share of all steps takes at most; 0 without steps."""
        classes: dict[int, int] = {}
        for each in self.stretches:
            for index, count in each.classes.items():
                classes[index] = classes.get(index, 0) + count
        left = share * sum(classes.values())
        for index, count in sorted(classes.items()):
            left -= count
            if left <= 0:
                return class_seconds(index)
        return 0.0

    def slowest(self, count: int) -> list[tuple[int, TimedStep]]:
        """Return the slowest steps with their ranks, first ones included, the slowest first."""
        found = [(rank.rank, step) for rank in self.ranks for each in rank.stretches for step in each.slowest]
        return sorted(found, key=lambda entry: -entry[1].seconds)[:count]

    def outside(self) -> dict[str, float]:
        """Return the seconds of what the slowest rank did between its steps."""
        names = {name for rank in self.ranks for name in rank.outside}
        return {name: max(rank.outside.get(name, 0.0) for rank in self.ranks) for name in sorted(names)}


def mean_phases(stretches: Iterable[Stretch]) -> dict[str, float]:
    """Return the seconds of each phase in a mean step of these."""
    total: dict[str, float] = {}
    count = 0
    for each in stretches:
        count += each.count
        for name, seconds in each.phases.items():
            total[name] = total.get(name, 0.0) + seconds
    return {name: seconds / count for name, seconds in total.items()} if count else {}


def read_profile(folder: Path) -> Profile:
    """Return the profile in a folder, of as many ranks as left something. Raises `ProfileMissingError`, `OSError`."""
    ranks = [rank for file in sorted(folder.glob(RANK_FILES)) if (rank := _read_rank(file)) is not None]
    if not ranks:
        raise ProfileMissingError(folder)
    return Profile(ranks)


def ranks_ended(folder: Path) -> int:
    """Return how many ranks have written their last line."""
    return sum(_last_kind(file) == "end" for file in folder.glob(RANK_FILES))


def _last_kind(file: Path) -> str | None:
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - LAST_BYTES))
        last = content.read().rstrip().rpartition(b"\n")[2]
    try:
        return str(json.loads(last)["kind"])
    except (ValueError, KeyError, TypeError):
        return None


def _read_rank(file: Path) -> RankProfile | None:
    """Return what a rank left, None if that has no beginning. A record that is damaged is left out."""
    rank: RankProfile | None = None
    for row in read_rows(file):
        try:
            rank = _take(rank, row)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return rank


def _take(rank: RankProfile | None, row: Mapping[str, Any]) -> RankProfile | None:
    """Add a record to what a rank left."""
    kind, at = row["kind"], _time(row["at"])
    if kind == "start":
        if rank is None:
            numbers = {name: int(row.get(name, 0)) for name in ("rank", "world_size", "cores", "memory_bytes")}
            return RankProfile({**row, **numbers}, until=at)
        rank.attempts += 1
    if rank is None:
        return None
    if kind == "steps":
        rank.stretches.append(_stretch(row))
    elif kind == "sample":
        rank.peak_memory = max(rank.peak_memory, _amount(row.get("rank_memory", 0)))
        if "cpu" in row:
            rank.samples.append(HostSample.from_row(row))
    elif kind == "outside":
        for name, seconds in row["phases"].items():
            rank.outside[name] = rank.outside.get(name, 0.0) + _amount(seconds)
    rank.has_ended = kind == "end"
    rank.until = max(rank.until, at + (rank.stretches[-1].seconds if kind == "steps" else 0.0))
    return rank


def _stretch(row: Mapping[str, Any]) -> Stretch:
    classes = {int(index): int(count) for index, count in row["classes"].items()}
    if not classes or not all(abs(index) <= MOST_CLASS and count > 0 for index, count in classes.items()):
        raise ValueError("no classes of times")
    slowest = [TimedStep(int(step["number"]), _time(step["at"]), _phases(step)) for step in row["slowest"]]
    return Stretch(
        _time(row["at"]), sum(classes.values()), _phases(row), classes, slowest, is_first=bool(row.get("is_first"))
    )


def _phases(row: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _amount(seconds) for name, seconds in row["phases"].items()}


def _pair(values: Iterable[Any]) -> tuple[float, float]:
    one, other = values
    return _amount(one), _amount(other)


def _time(value: Any) -> float:
    """Return a time of day that a calendar has."""
    if not 0 <= float(value) <= LAST_TIME:
        raise ValueError(f"{value} is no time")
    return float(value)


def _amount(value: Any) -> float:
    if not 0 <= float(value) <= MOST:
        raise ValueError(f"{value} is no amount")
    return float(value)
