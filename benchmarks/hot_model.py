"""`make bench-models`: what a copy in another shared host gives a busy model, and when it comes.

Two shared hosts, whatever the machine; 8 clients ask one model of many matrices without a pause. Each round is a new
server: it is measured while the model lies in one host, and again when it lies in two. Nothing is asserted.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx

from benchmarks.loading_beside import WIDTH, large_model
from benchmarks.serving_suite.contestants import Cell, closed_loop
from benchmarks.serving_suite.own import Listening, mooring

ROUNDS = 5
CLIENTS = 8
ROWS = 8  # of a request
SECONDS = 3.0
PATIENCE_S = 60.0
NO_CACHE = {"MOORING_MODEL_CACHE": "/dev/null/none"}  # no other form of the model is made meanwhile


def main() -> None:
    """Print rates and tails in one host and in two, by medians of the rounds."""
    found: dict[int, list[Cell]] = {1: [], 2: []}
    waits = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large_model(folder / "models/hot/model.onnx")
        body = folder / "body"
        body.write_text(json.dumps([[0.5] * WIDTH] * ROWS), encoding="utf-8")
        for _ in range(ROUNDS):
            arguments = ("--repository", str(folder / "models"), "--shared-hosts", "2")
            with mooring(*arguments, told=NO_CACHE) as server:
                ask(server, body, 0.5)  # it loads on its first request
                started = time.monotonic()
                found[1].append(ask(server, body, SECONDS))
                while hosts(server) < 2 and time.monotonic() < started + PATIENCE_S:
                    ask(server, body, 0.5)
                waits.append(time.monotonic() - started)
                found[2].append(ask(server, body, SECONDS))
    print(f"one model, {CLIENTS} clients, two shared hosts, medians of {ROUNDS} rounds of {SECONDS:g} s")
    for count, cells in found.items():
        rate, p50, p99 = (median(cell[what] for cell in cells) for what in ("rps", "p50_ms", "p99_ms"))
        print(f"  in {count} host(s)  {rate:7.0f} requests/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms")
    print(f"  the copy was there after {median(waits):.1f} s")


def ask(server: Listening, body: Path, seconds: float) -> Cell:
    """Ask for so long; returns requests/s and percentiles."""
    url = f"http://127.0.0.1:{server.port}/models/hot/invoke"
    with server.group.moving():
        return closed_loop(url, body, "application/json", CLIENTS, seconds)


def hosts(server: Listening) -> int:
    """Return in how many hosts the model lies."""
    with server.group.moving():
        return len(httpx.get(f"http://127.0.0.1:{server.port}/models/hot").json()["hosts"])


if __name__ == "__main__":
    main()
