"""The Pipe-mode reader against `cat` on the same FIFO: records of 100 KB as fast as they come, interleaved rounds."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mooring.artifact.recordio import frame
from mooring.training import DataPosition, Records, channel

RECORD_BYTES = 100_000
RECORDS_PER_BLOCK = 40
BLOCKS = 500
ROUNDS = 9

# Writes as fast as can be: what it writes is in memory. Waits for the reader to have opened the FIFO.
WRITER = f"""
import os, sys
block = open(sys.argv[1], "rb").read()
fifo = os.open(sys.argv[2], os.O_WRONLY)
for _ in range({BLOCKS}):
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(fifo, rest):]
"""


def main() -> None:
    """Print the bytes a second of both, what they take of a processor, and the ratio."""
    total = BLOCKS * RECORDS_PER_BLOCK * RECORD_BYTES
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "block").write_bytes(frame(os.urandom(RECORD_BYTES)) * RECORDS_PER_BLOCK)
        (base / "input/config").mkdir(parents=True)
        (base / "input/config/inputdataconfig.json").write_text('{"train": {"TrainingInputMode": "Pipe"}}')
        (base / "input/data").mkdir()
        rounds = [(_measured(base, _cat), _measured(base, _ours)) for _ in range(ROUNDS)]
    print(f"\n{total / 1e9:.0f} GB in records of {RECORD_BYTES // 1000} KB, {ROUNDS} interleaved rounds, medians")
    for what, values in zip(("cat", "channel.batches"), zip(*rounds, strict=True), strict=True):
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"  {what:<16} {total / wall / 1e6:8,.0f} MB/s   {1000 * cpu / (total / 1e9):6.0f} ms of a core per GB")
    ratio = statistics.median(cat / ours for (cat, _), (ours, _) in rounds)
    print(f"  the reader's rate is {ratio:.2f} x cat's")


def _measured(base: Path, read: Callable[[Path, Path], None]) -> tuple[float, float]:
    """Return the seconds that a read takes, and what it takes of a processor. In a fork: a container reads FIFO 0."""
    fifo = base / "input/data/train_0"
    os.mkfifo(fifo)
    report, reporting = os.pipe()
    sys.stdout.flush()
    reader = os.fork()
    if reader == 0:
        started, cpu = time.perf_counter(), _cpu_seconds()
        read(base, fifo)
        os.write(reporting, f"{time.perf_counter() - started} {_cpu_seconds() - cpu}".encode())
        os._exit(0)
    writer = subprocess.Popen([sys.executable, "-S", "-c", WRITER, str(base / "block"), str(fifo)])
    assert writer.wait() == 0
    assert os.waitpid(reader, 0)[1] == 0
    fifo.unlink()
    seconds, cpu_seconds = (float(number) for number in os.read(report, 100).split())
    os.close(report)
    os.close(reporting)
    return seconds, cpu_seconds


def _cpu_seconds() -> float:
    """Return what this process and its children have taken of a processor."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _cat(_base: Path, fifo: Path) -> None:
    with Path(os.devnull).open("wb") as nowhere:
        subprocess.run(["cat", str(fifo)], stdout=nowhere, check=True)


def _ours(base: Path, _fifo: Path) -> None:
    """Read as a training script does: batches of a channel."""
    os.environ["SAGEMAKER_BASE_DIR"] = str(base)
    batches = channel("train").batches(8, DataPosition(), Records(), collate=list)
    assert sum(len(batch) for batch in batches) == BLOCKS * RECORDS_PER_BLOCK


if __name__ == "__main__":
    main()
