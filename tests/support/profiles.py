"""Profiles as runs leave them, with the numbers that a test wants."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mooring.training.json_lines import append_row
from mooring.training.profiling.recorder import rank_file
from mooring.training.profiling.steps import TimedStep, stretch

BEGAN = 1_790_000_000.0
GIB = 1 << 30


def write_rank(
    folder: Path,
    rank: int = 0,
    *,
    phases: Mapping[str, float],
    world_size: int = 1,
    count: int = 200,
    slow: Mapping[int, float] | None = None,
    host: str = "algo-1",
    has_end: bool = True,
    outside: Mapping[str, float] | None = None,
    **samples: Sequence[Any],
) -> None:
    """Write a rank's file: `count` steps of these phases, in ten stretches, and samples of the host beside them."""
    file = rank_file(folder, rank)
    facts = {"rank": rank, "local_rank": 0, "world_size": world_size, "host": host, "job": "digits <2026>"}
    append_row(file, {"kind": "start", "at": BEGAN, **facts, "cores": 8, "memory_bytes": 16 * GIB})
    at = BEGAN + 1
    steps = []
    for number in range(1, count + 1):
        taken = {name: seconds * (slow or {}).get(number, 1.0) for name, seconds in phases.items()}
        steps.append(TimedStep(number, at, taken))
        at += steps[-1].seconds
    size = max(1, count // 10)
    for start in range(0, count, size):
        append_row(file, stretch(steps[start : start + size]))
        # Samples are taken as often as there are stretches.
        values = {name: each[start // size % len(each)] for name, each in samples.items()}
        append_row(file, {"kind": "sample", "at": steps[start].at, "rank_memory": GIB, **values})
    if outside:
        append_row(file, {"kind": "outside", "at": at, "phases": dict(outside)})
    if has_end:
        append_row(file, {"kind": "end", "at": at, "is_well": True})
