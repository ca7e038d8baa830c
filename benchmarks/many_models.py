"""`make bench-models`: a thousand small models loaded and answered in one server, with time and memory.

Then fifty rounds of loading and unloading one, whose memory should come back. Nothing is asserted.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from benchmarks.serving import free_port, running
from examples.serving.many_models.fleet import write_fleet

COUNT = 1000
ROUNDS = 50
ROW = [[1.0, 2.0, 3.0, 4.0]]


def main() -> None:
    """Print the figures; the number of models may be given."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        names = write_fleet(Path(folder), count)
        argv = [str(Path(sys.executable).parent / "serve"), "--repository", folder, "--port", str(port)]
        with running(argv, {}, f"http://127.0.0.1:{port}") as process, httpx.Client(timeout=60) as client:
            base = f"http://127.0.0.1:{port}"
            ask(client, base, names[0])  # the host's own start is not a model's
            before = held(process.pid)
            firsts = [ask(client, base, name) for name in names[1:]]
            loaded = held(process.pid)
            seconds = [ask(client, base, name) for name in names]
            print(f"{count} models of 2 KB in one server, each loaded by its first request")
            show("first answer, load included", firsts)
            show("second answer", seconds)
            print(f"  all of them loaded and answered in {sum(firsts):.2f} s")
            print(f"  memory: {before / 1e6:.1f} MB with one, {loaded / 1e6:.1f} MB with all, of all processes (PSS)")
            print(f"  {(loaded - before) / (count - 1) / 1e6:.3f} MB per model")
            print(f"  {ROUNDS} rounds of unload and load: {rounds(client, base, names[0], process.pid):+.1%} memory")


def ask(client: httpx.Client, base: str, name: str) -> float:
    """Return the seconds that one answer took, client included."""
    started = time.perf_counter()
    client.post(f"{base}/models/{name}/invoke", json=ROW).raise_for_status()
    return time.perf_counter() - started


def rounds(client: httpx.Client, base: str, name: str, pid: int) -> float:
    """Unload and load a model many times; return by how much memory has grown."""
    before = held(pid)
    for _ in range(ROUNDS):
        client.delete(f"{base}/models/{name}").raise_for_status()
        ask(client, base, name)
    return held(pid) / before - 1


def held(pid: int) -> int:
    """Return the proportional set size of a process and its descendants."""
    family = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (family, *family.children(recursive=True)))


def show(what: str, seconds: list[float]) -> None:
    """Print median and tail in milliseconds."""
    tail = sorted(seconds)[int(len(seconds) * 0.99)]
    print(f"  {what:30} p50 {statistics.median(seconds) * 1e3:6.2f} ms   p99 {tail * 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
