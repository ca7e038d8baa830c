"""Small models for servers to hold."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def scale_model(path: Path, factor: float = 2.0, padding_floats: int = 0, width: int = 3) -> Path:
    """Write a model folder whose `model.onnx` multiplies n x `width` floats, made larger by weights it holds."""
    path.mkdir(parents=True, exist_ok=True)
    initializers = [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    if padding_floats:
        values = np.random.default_rng(0).random(padding_floats, dtype=np.float32)
        initializers.append(numpy_helper.from_array(values, "padding"))
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
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path / "model.onnx")
    return path


def slow_model(path: Path, draws: int = 4_000_000) -> Path:
    """Write a model that doubles n x 3 floats once it has drawn so many random numbers: 100,000 take a millisecond."""
    path.mkdir(parents=True)
    nodes = [
        helper.make_node("RandomUniform", [], ["random"], shape=[draws]),
        helper.make_node("ReduceMax", ["random"], ["largest"], keepdims=0),
        helper.make_node("Ceil", ["largest"], ["one"]),
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Mul", ["x", "two"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "slow", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path / "model.onnx")
    return path


def layered_model(path: Path, count: int, seed: int = 0, bias: float = 0.0, width: int = 1024) -> Path:
    """Write a model of `count` matrices of 4 MiB each; models of one seed differ in their small bias only."""
    path.mkdir(parents=True)
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for index in range(count):
        values = (random.standard_normal((width, width)) / width**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        last = f"m{index}"
    weights.append(numpy_helper.from_array(np.array([bias], dtype=np.float32), "bias"))
    nodes.append(helper.make_node("Add", [last, "bias"], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path / "model.onnx")
    return path


def code_model(path: Path, code: str) -> Path:
    """Write a model folder that brings `code/inference.py`."""
    (path / "code").mkdir(parents=True, exist_ok=True)
    (path / "code/inference.py").write_text(code, encoding="utf-8")
    return path


def quotient_model(path: Path) -> Path:
    """Write a model that divides whole numbers, and dies of the one quotient that has none: the processor's own error.

    onnxruntime looks for divisors of zero, not for the smallest number divided by -1.
    """
    path.mkdir(parents=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.INT32, ["n", 1]) for name in ("x", "by", "y")]
    graph = helper.make_graph([helper.make_node("Div", ["x", "by"], ["y"])], "quotient", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path / "model.onnx")
    return path
