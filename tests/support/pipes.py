"""Channels in Pipe mode, with a process for each that writes one FIFO after the other, as the platform's agent does."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs import write_config

from mooring.artifact.recordio import frame

# A FIFO is made when the one before was read or left: who leaves early breaks the pipe.
WRITER = """
import os, sys
base, *sources = sys.argv[1:]
number = 0
while True:
    content = open(sources[min(number, len(sources) - 1)], "rb").read()
    fifo = f"{base}_{number}"
    os.mkfifo(fifo)
    try:
        with open(fifo, "wb", buffering=0) as stream:
            stream.write(content)
    except BrokenPipeError:
        pass
    number += 1
"""


def describe_pipes(base: Path, **channels: Mapping[str, str]) -> None:
    """Describe a job's channels, all of them in Pipe mode."""
    piped = {"TrainingInputMode": "Pipe", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    write_config(base, "inputdataconfig.json", {name: {**piped, **fields} for name, fields in channels.items()})


@contextmanager
def written(base: Path, **contents: bytes | Sequence[bytes]) -> Iterator[None]:
    """Write each channel's FIFOs while the block runs, from number 0 on, as a new container has them.

    Each pass has the same content; or, of several, its own, and the last is every later pass's.
    """
    folder = base / "input/data"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_fifo():
            path.unlink()
    processes = []
    for name, given in contents.items():
        sources = []
        for number, content in enumerate([given] if isinstance(given, bytes) else given):
            sources.append(folder.parent / f"content-{name}-{number}")
            sources[-1].write_bytes(content)
        processes.append(subprocess.Popen([sys.executable, "-S", "-c", WRITER, str(folder / name), *map(str, sources)]))
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def framed(*contents: bytes) -> bytes:
    """Return contents as RecordIO."""
    return b"".join(map(frame, contents))
