"""The file of metrics: a JSON object for each report, with its time, written whole or not at all.

It is kept by every attempt of a job, and read while the job runs, so it never holds half a line for long: what an
attempt that was killed left of one is cut off before the next is written.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mooring.contract.paths import ContainerPaths

FILE_NAME = "metrics.jsonl"
# What a row holds besides its metrics.
PLACE = ("step", "epoch")
TIME = "time"
TAIL_BYTES = 1 << 16


def metrics_file(paths: ContainerPaths) -> Path:
    """Return where a job's metrics are recorded."""
    return paths.output_data / FILE_NAME


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Add a row. Raises `OSError`, and then the file is as it was."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({name: _storable(value) for name, value in row.items()}, allow_nan=False).encode() + b"\n"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        end = _close_last_line(descriptor)
        try:
            written = os.write(descriptor, line)
            if written < len(line):
                os.write(descriptor, line[written:])  # which says why it did not fit
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _close_last_line(descriptor: int) -> int:
    """Complete the file's last line, or cut it off if it is no row, and return where the next begins."""
    end = os.fstat(descriptor).st_size
    start = max(0, end - TAIL_BYTES)
    if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
        return end
    tail = os.pread(descriptor, end - start, start)
    cut = tail.rfind(b"\n") + 1
    try:
        json.loads(tail[cut:])
    except ValueError:
        os.ftruncate(descriptor, start + cut)
        return start + cut
    return end + os.write(descriptor, b"\n")


def _storable(value: Any) -> Any:
    """Return a value that JSON has; what it has not is written as text that languages read as the number."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, numbers as numbers; lines that are no rows are left out. Raises `OSError`."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield {name: _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row, without where and when they were taken."""
    return {
        name: value
        for name, value in row.items()
        if name not in (*PLACE, TIME) and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
