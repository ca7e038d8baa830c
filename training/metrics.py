"""Metrics of a run: one line each for the platform's regular expressions, and a file for whoever draws curves."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from mooring.contract.environment import process_variables
from mooring.contract.paths import ContainerPaths

METRICS_FILE = "metrics.jsonl"


def report(**values: float) -> None:
    """Print metrics on one line as `name=value;`, and add them to output/data/metrics.jsonl. The first rank only.

    A metric definition for it has the regular expression `name=([0-9.eE+-]+);`.

        report(epoch=3, validation_accuracy=0.97)
    """
    if dist.is_initialized() and dist.get_rank() != 0:
        return
    sys.stdout.write(" ".join(f"{name}={_number(value)};" for name, value in values.items()) + "\n")
    sys.stdout.flush()
    with metrics_file().open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def metrics_file() -> Path:
    """Return where metrics are recorded, below a folder that exists."""
    folder = ContainerPaths.from_variables(process_variables()).output_data
    folder.mkdir(parents=True, exist_ok=True)
    return folder / METRICS_FILE


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
