"""Small models for servers to hold."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def scale_model(path: Path, factor: float = 2.0, padding_floats: int = 0, seed: int = 0) -> Path:
    """Write a model folder whose `model.onnx` multiplies n x 3 floats, made larger by weights it carries along."""
    path.mkdir(parents=True, exist_ok=True)
    initializers = [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    if padding_floats:
        padding = numpy_helper.from_array(np.random.default_rng(seed).random(padding_floats, dtype=np.float32), "padding")
        initializers.append(padding)
        nodes = [
            helper.make_node("ReduceMax", ["padding"], ["largest"], keepdims=0),
            helper.make_node("Min", ["largest", "zero"], ["nothing"]),
            helper.make_node("Mul", ["x", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["y"]),
        ]
        initializers.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path / "model.onnx")
    return path


def code_model(path: Path, code: str) -> Path:
    """Write a model folder that brings `code/inference.py`."""
    (path / "code").mkdir(parents=True, exist_ok=True)
    (path / "code/inference.py").write_text(code, encoding="utf-8")
    return path
