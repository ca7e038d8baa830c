"""onnxruntime and nothing else: what a server that costs nothing would reach.

A process of its own: `python -m benchmarks.serving_suite.bare_loop MODEL ROWS SECONDS CALLERS THREADS BATCH`.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime

from .closed_loop import summary

WARM_S = 0.3


def main() -> None:
    """Print rows per second and how long calls took, as one object."""
    model, rows_file = sys.argv[1:3]
    seconds, (callers, threads, batch) = float(sys.argv[3]), map(int, sys.argv[4:7])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.repeat(np.load(rows_file), batch, axis=0)}
    call(session, feeds, callers, WARM_S)
    started = time.perf_counter()
    taken = call(session, feeds, callers, seconds)
    found = summary(taken, time.perf_counter() - started)
    print(json.dumps(found | {"rps": found["rps"] * batch}))


def call(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, object], callers: int, seconds: float
) -> list[float]:
    """Call from so many threads until time is up; returns how long each call took."""
    until = time.perf_counter() + seconds
    taken: list[float] = []

    def again_and_again() -> None:
        now = time.perf_counter()
        while now < until:
            session.run(None, feeds)
            before, now = now, time.perf_counter()
            taken.append(now - before)

    threads = [threading.Thread(target=again_and_again) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


if __name__ == "__main__":
    main()
