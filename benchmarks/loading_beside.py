"""`make bench-models`: how long a steady model's answers take while another is loaded and unloaded beside it.

One client asks a tiny ONNX model all the time, paced, so that a core is free for the load; rounds with and without
loads take turns. Nothing is asserted.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import httpx
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from benchmarks.serving_suite.exports import write_tiny
from benchmarks.serving_suite.own import mooring

ROUNDS = 5
SECONDS = 4.0
PAUSE_S = 0.002
LARGE_MATRICES = 25  # of 4 MiB each
WIDTH = 1024
CODE = "import time\ndef model_fn(model_dir): return list(range(1_000_000))\ndef predict_fn(data, model): return data\n"


def main() -> None:
    """Print medians and tails of the steady model's answers beside nothing, a large model, and a model with code."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tiny").mkdir()
        write_tiny(root / "tiny/model.onnx")
        large_model(root / "large/model.onnx")
        (root / "code/code").mkdir(parents=True)
        (root / "code/code/inference.py").write_text(CODE)
        # The large model's file is read anew each time, not its mapped form.
        no_cache = {"MOORING_MODEL_CACHE": "/dev/null/none"}
        with mooring("--repository", folder, told=no_cache) as server, httpx.Client(timeout=60) as client:
            base = f"http://127.0.0.1:{server.port}"
            beside: dict[str, Callable[[], AbstractContextManager[object]]] = {
                "nothing": nullcontext,
                "loads of 100 MB of ONNX": lambda: loading(base, "large", [[0.0] * WIDTH]),
                "loads of a model with code": lambda: loading(base, "code", [[1.0]]),
            }
            times: dict[str, list[float]] = {name: [] for name in beside}
            ask(client, base)
            for _ in range(ROUNDS):
                for name, begin in beside.items():
                    with begin():
                        until = time.monotonic() + SECONDS
                        while time.monotonic() < until:
                            times[name].append(ask(client, base))
                            time.sleep(PAUSE_S)
    print(f"answers of a tiny model, {ROUNDS} interleaved rounds of {SECONDS:g} s, one client, beside")
    for name, seconds in times.items():
        p50, p99, most = np.percentile(seconds, (50, 99, 100)) * 1e3
        print(f"  {name:28} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   most {most:6.2f} ms   of {len(seconds)}")


def ask(client: httpx.Client, base: str) -> float:
    """Return the seconds that one answer took, client included."""
    started = time.perf_counter()
    client.post(f"{base}/models/tiny/invoke", content=b"[[1,2,3]]").raise_for_status()
    return time.perf_counter() - started


@contextmanager
def loading(base: str, name: str, row: object) -> Iterator[None]:
    """Load a model by a request and unload it, again and again, while the block runs."""
    is_over = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not is_over.is_set():
                client.post(f"{base}/models/{name}/invoke", content=json.dumps(row)).raise_for_status()
                client.delete(f"{base}/models/{name}").raise_for_status()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def large_model(file: Path) -> None:
    """Write a chain of matrices."""
    file.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(LARGE_MATRICES):
        values = (random.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"y{index}"]))
        last = f"y{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)


if __name__ == "__main__":
    main()
