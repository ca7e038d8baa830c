"""The file of metrics: a row for each report, with where in the run and when it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mooring.contract.paths import ContainerPaths

FILE_NAME = "metrics.jsonl"
# What a row holds besides its metrics.
PLACE = ("step", "epoch")
TIME = "time"


def metrics_file(paths: ContainerPaths) -> Path:
    """Return where a job's metrics are recorded."""
    return paths.output_data / FILE_NAME


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row, without where and when they were taken."""
    return {
        name: value
        for name, value in row.items()
        if name not in (*PLACE, TIME) and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
