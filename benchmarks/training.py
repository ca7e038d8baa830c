"""`make bench-training`: launchers, checkpoints, log relay, readers and profiler against the plain thing, interleaved.

`python -m benchmarks.training launchers` runs one part; the parts are launchers, stalls, throughput, relay, pipe,
inside and images.
"""

import platform
import sys
from collections.abc import Callable

import torch

from mooring.contract.resources import usable_cpus

from . import image_pipeline, launchers, pipe_reader, profiling, relaying, saving

PARTS: dict[str, Callable[[], None]] = {
    "launchers": launchers.main,
    "stalls": saving.stalls,
    "throughput": saving.throughput,
    "relay": relaying.main,
    "pipe": pipe_reader.main,
    "inside": profiling.main,
    "images": image_pipeline.main,
}


def main() -> None:
    """Run the parts that the arguments name, or all."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        sys.exit(f"There is no part {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    print(f"{usable_cpus()} CPUs, Python {platform.python_version()}, torch {torch.__version__}")
    for name in chosen:
        PARTS[name]()


if __name__ == "__main__":
    main()
