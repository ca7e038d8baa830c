"""How many lines a second come through our relay from eight ranks, against the same writers on one plain pipe."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mooring.runner.platform_files import write_training_inputs

ROUNDS = 5
RANKS, LINES = 8, 250_000
BIN = Path(sys.executable).parent
WRITER = f'exec seq -f "rank line %.0f with a loss of 0.123456789" {LINES}'


def main() -> None:
    """Print the table."""
    plain, ours = [], []
    for _ in range(ROUNDS):
        plain.append(rate(["bash", "-c", f"for rank in {{1..{RANKS}}}; do ({WRITER}) & done; wait"], {}))
        ours.append(relayed())
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    print(f"\n{RANKS} writers of {LINES:,} lines each, {ROUNDS} interleaved rounds, medians")
    print(f"  one plain pipe, lines torn  {statistics.median(plain):12,.0f} lines/s")
    print(f"  relayed by train, none torn {statistics.median(ours):12,.0f} lines/s  {ratio:5.2f} x")


def relayed() -> float:
    """Return the lines a second that come out of `train`."""
    with tempfile.TemporaryDirectory() as base:
        paths = write_training_inputs(Path(base), hyperparameters={}, channels={})
        (paths.code / "train.sh").write_text(WRITER, encoding="utf-8")
        given = {
            "SAGEMAKER_BASE_DIR": base,
            "SAGEMAKER_PROGRAM": "train.sh",
            "MOORING_PROCESSES_PER_HOST": str(RANKS),
        }
        return rate([str(BIN / "train")], given)


def rate(command: list[str], variables: dict[str, str]) -> float:
    """Run a command, and return lines a second between its first output and its last."""
    lines = 0
    with subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        chunk, started = os.read(pipe, 1 << 16), time.perf_counter()
        while chunk:
            lines += chunk.count(b"\n")
            ended = time.perf_counter()
            chunk = os.read(pipe, 1 << 16)
    if lines < RANKS * LINES:
        raise RuntimeError(f"{command[0]} lost {RANKS * LINES - lines} lines")
    return lines / (ended - started)
