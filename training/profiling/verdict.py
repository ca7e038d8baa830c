"""What holds a run up, in a sentence with its numbers; and a sentence that says so where nothing does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from .steps import DATA, OTHER
from .summary import Profile

# Below these, a part of a step or of the machine is not worth a sentence.
DATA_SHARE, CHECKPOINT_SHARE, OTHER_SHARE = 0.2, 0.1, 0.3
BUSY, IDLE_GPU, FULL = 0.85, 0.5, 0.9
# A rank that computes so much longer than the middle one holds up all others, who wait for it in their backward pass.
STRAGGLER = 1.25
# Ranks wait for each other in these, so they say nothing of who is slow.
WAITING = ("backward", "optimizer", "checkpoint")
LEAST_STEPS = 5


@dataclass(frozen=True)
class Verdict:
    """The sentence that matters most, and others that are true as well."""

    headline: str
    notes: list[str] = field(default_factory=list)


def judge(profile: Profile) -> Verdict:
    """Return what a profile says."""
    count = sum(rank.count for rank in profile.ranks)
    if count < LEAST_STEPS:
        return Verdict(
            f"There are {count} steps in this profile, too few to say what holds the run up.", _notes(profile)
        )
    findings = [sentence for find in FINDINGS if (sentence := find(profile))]
    if not findings:
        findings = [_nothing(profile)]
    return Verdict(findings[0], findings[1:] + _notes(profile))


# --- what may hold it up, the worst first -----------------------------------------------------------------------------


def _data(profile: Profile) -> str | None:
    share, seconds, whole = _share(profile, DATA)
    if share < DATA_SHARE:
        return None
    text = f"Waiting for data takes {share:.0%} of a step ({_ms(seconds)} of {_ms(whole)})"
    if not profile.samples:
        return f"{text}. Try more workers in the loader, or less work for each sample."
    cpu = fmean(sample.cpu for sample in profile.samples)
    if cpu >= BUSY:
        return (
            f"{text}, and the cores are {cpu:.0%} busy, so more workers would not help. Do less for each sample "
            "(smaller images, decoded once and kept), or take a machine with more cores."
        )
    return f"{text}, while the cores are only {cpu:.0%} busy. Try more workers in the loader (num_workers)."


def _checkpoint(profile: Profile) -> str | None:
    share, seconds, whole = _share(profile, "checkpoint")
    if share < CHECKPOINT_SHARE:
        return None
    return f"Checkpoints take {share:.0%} of a mean step ({_ms(seconds)} of {_ms(whole)}). Save less often."


def _straggler(profile: Profile) -> str | None:
    """Find a rank for whose data or forward pass the others wait."""
    own = {
        rank.rank: sum(seconds for name, seconds in rank.mean_phases().items() if name not in WAITING)
        for rank in profile.ranks
        if rank.count
    }
    if len(own) < 2:
        return None
    slow = max(own, key=lambda rank: own[rank])
    middle = median(seconds for rank, seconds in own.items() if rank != slow)
    _, _, whole = _share(profile, DATA)
    if own[slow] < STRAGGLER * middle or own[slow] - middle < CHECKPOINT_SHARE * whole:
        return None
    return (
        f"Rank {slow} holds up the others: what it does by itself takes {_ms(own[slow])} a step, theirs {_ms(middle)}. "
        "Look at what it shares its host or device with, and whether its samples are larger."
    )


def _other(profile: Profile) -> str | None:
    phases = profile.phases()
    if set(phases) <= {DATA, OTHER}:
        return None  # the loop names no phases: that is a note, not a finding
    share, seconds, whole = _share(profile, OTHER)
    if share < OTHER_SHARE:
        return None
    return (
        f"{share:.0%} of a step ({_ms(seconds)} of {_ms(whole)}) is in no phase: metrics, logging, or a wait for the "
        "GPU such as .item(). Put phases around what else the loop does."
    )


def _idle_gpus(profile: Profile) -> str | None:
    busy = [gpu[0] for sample in profile.samples for gpu in sample.gpus]
    if not busy or fmean(busy) >= IDLE_GPU or _share(profile, DATA)[0] >= DATA_SHARE:
        return None
    return (
        f"The GPUs compute only {fmean(busy):.0%} of the time, and not for want of data. Try larger batches, mixed "
        "precision off the critical path, or torch.compile, so that each launch does more."
    )


FINDINGS = (_data, _straggler, _checkpoint, _idle_gpus, _other)


def _nothing(profile: Profile) -> str:
    phases = profile.phases()
    whole = sum(phases.values())
    rest = {name: seconds for name, seconds in phases.items() if name != DATA}
    parts = ", ".join(f"{name} {percent(seconds / whole)}" for name, seconds in rest.items())
    waiting = phases.get(DATA, 0.0) / whole
    return (
        f"Nothing stands out. A step takes {_ms(whole)}, of which {percent(waiting)} is waiting for data; the rest is "
        f"{parts}. What is left is the model's own computing: a faster device, mixed precision or larger batches."
    )


# --- what is worth knowing besides ------------------------------------------------------------------------------------


def _notes(profile: Profile) -> list[str]:
    notes = []
    if profile.ranks and set(profile.phases()) <= {DATA, OTHER}:
        notes.append("The loop names no phases, so forward, backward and the rest are one: use profiler.phase(…).")
    total = max(rank.facts["memory_bytes"] for rank in profile.ranks)
    peak = max((sample.memory for sample in profile.samples), default=0.0)
    if total and peak >= FULL * total:
        notes.append(f"Memory came within {1 - peak / total:.0%} of its limit of {total / 2**30:.1f} GiB.")
    gpu_peak = max((gpu[1] / gpu[2] for sample in profile.samples for gpu in sample.gpus if gpu[2]), default=0.0)
    if gpu_peak >= FULL:
        notes.append(f"The memory of a GPU was {gpu_peak:.0%} full.")
    spent = {name: seconds for name, seconds in profile.outside().items() if seconds >= 0.05 * _duration(profile)}
    if spent:
        parts = ", ".join(f"{name} {seconds / _duration(profile):.0%}" for name, seconds in spent.items())
        notes.append(f"Of the whole time, {parts} went by between steps.")
    lost = [rank.rank for rank in profile.ranks if not rank.has_ended]
    if lost:
        notes.append(f"{_ranks(lost)} left no end: the run was killed, or is still going on.")
    missing = profile.ranks[0].facts["world_size"] - len(profile.ranks)
    if missing > 0:
        notes.append(f"The files of {missing} ranks are not in this folder; other hosts keep their own.")
    return notes


def _ranks(ranks: Sequence[int]) -> str:
    return f"Rank {ranks[0]}" if len(ranks) == 1 else f"Ranks {', '.join(str(rank) for rank in ranks)}"


def _share(profile: Profile, name: str) -> tuple[float, float, float]:
    """Return the share that a phase has in a mean step, its seconds, and the step's."""
    phases = profile.phases()
    whole = sum(phases.values())
    seconds = phases.get(name, 0.0)
    return (seconds / whole if whole else 0.0), seconds, whole


def _duration(profile: Profile) -> float:
    return profile.ended - profile.began


def percent(share: float) -> str:
    """Say a share; small ones with a digit more.

    >>> percent(0.314), percent(0.004)
    ('31%', '0.4%')
    """
    return f"{share:.{0 if share >= 0.01 else 1}%}"


def _ms(seconds: float) -> str:
    """Say a time in three digits.

    >>> _ms(0.0123), _ms(1.5), _ms(0.00041)
    ('12.3 ms', '1.50 s', '0.41 ms')
    """
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.{1 if seconds >= 0.001 else 2}f} ms"
