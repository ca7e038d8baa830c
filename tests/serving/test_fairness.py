from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from models import scale_model
from onnx import TensorProto, helper, numpy_helper
from servers import Servers, wait_until

WAITING = 24
WIDTH = 1024


def test_model_with_a_long_queue_lets_the_others_of_its_process_have_their_turn(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path)
    assert server.load("busy", busy_model(tmp_path / "busy")).status_code == 200
    assert server.load("other", scale_model(tmp_path / "other")).status_code == 200
    assert server.client.get("/models/busy").json()["hosts"] == server.client.get("/models/other").json()["hosts"]
    with ThreadPoolExecutor(WAITING) as pool:
        queued = [pool.submit(server.invoke, "busy", [[0.5]]) for _ in range(WAITING)]
        # The second is out, so the host has taken in what had come before it began.
        wait_until(lambda: sum(one.done() for one in queued) > 1, 60)
        assert server.invoke("other", [[1, 2, 3]]).json() == [[2, 4, 6]]
        assert sum(one.done() for one in queued) < WAITING / 2
    assert all(one.result().status_code == 200 for one in queued)


def busy_model(folder: Path) -> Path:
    """Write a model that multiplies large matrices for every number it is given, one request at a time."""
    folder.mkdir()
    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
    nodes = [
        helper.make_node("Mul", ["x", "weights"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["second"]),
        helper.make_node("MatMul", ["second", "weights"], ["third"]),
        helper.make_node("ReduceMean", ["third"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["x", "mean"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "busy", [x], [y], [numpy_helper.from_array(weights, "weights")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    (folder / "mooring.toml").write_text("[batching]\nmax_rows = 1\n", encoding="utf-8")
    return folder
