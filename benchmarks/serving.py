"""`make bench`: our server against a raw in-process loop, interleaved, as ratios of medians.

Machines are shared and noisy, so only ratios within one run mean anything, and nothing is asserted.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from onnx import TensorProto, helper, save

ROUNDS = 5
SECONDS = 3.0
CLIENTS = (1, 16, 64)
START_TIMEOUT_S = 60.0


def main() -> None:
    """Run all rounds and print the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = tiny_model(Path(folder) / "tiny/model.onnx")
        bin_folder = Path(sys.executable).parent
        peers = {
            "mooring": (("serve", "--repository", folder), "/models/tiny/invoke", {}),
            "raw loop": (
                ("uvicorn", "--no-access-log", "--log-level", "warning", "benchmarks.raw_loop:application"),
                "/invocations",
                {"MODEL": str(model)},
            ),
        }
        targets = {}
        for name, (command, path, variables) in peers.items():
            port = free_port()
            argv = [str(bin_folder / command[0]), *command[1:], "--port", str(port)]
            stack.enter_context(running(argv, variables, f"http://127.0.0.1:{port}"))
            httpx.post(f"http://127.0.0.1:{port}{path}", json=[[1, 2, 3]], timeout=60).raise_for_status()
            targets[name] = (port, path)
        for clients in CLIENTS:
            compare(targets, clients)


def compare(targets: dict[str, tuple[int, str]], clients: int) -> None:
    """Measure every peer in turn, some rounds, and print medians and ratios to the last one."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, (port, path) in targets.items():
            command = [sys.executable, "-m", "benchmarks.load", str(port), path, str(clients), str(SECONDS)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name].append(json.loads(done.stdout))
    print(f"\n{clients} client(s), {ROUNDS} interleaved rounds of {SECONDS:g} s, medians")
    base = median(results["raw loop"], "rps")
    for name, rounds in results.items():
        rps = median(rounds, "rps")
        p50, p99 = median(rounds, "p50_ms"), median(rounds, "p99_ms")
        print(f"  {name:<10} {rps:>9,.0f} requests/s   {rps / base:>5.2f} x   p50 {p50:.2f} ms   p99 {p99:.2f} ms")


def median(rounds: list[dict[str, float]], key: str) -> float:
    """Return the median of one number over the rounds."""
    return statistics.median(one[key] for one in rounds)


def tiny_model(file: Path) -> Path:
    """Write y = 2x for n x 3 floats: all that is measured is the server."""
    file.parent.mkdir(parents=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "tiny", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(argv: list[str], variables: dict[str, str], url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of the block."""
    with subprocess.Popen(argv, env=os.environ | variables, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(url)
            yield process
        finally:
            process.terminate()


def wait_for(url: str) -> None:
    """Wait until a server answers anything. Raises `TimeoutError`."""
    limit = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < limit:
        try:
            httpx.get(f"{url}/ping")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{url} did not come up within {START_TIMEOUT_S:g} s")


if __name__ == "__main__":
    main()
