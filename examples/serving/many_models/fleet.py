"""A thousand models in one server, each loaded on its first request.

    python -m examples.serving.many_models.fleet /tmp/fleet 1000     # write a thousand small models
    serve --repository /tmp/fleet                                    # in another terminal
    curl -d '[[1, 2, 3, 4]]' localhost:8080/models/shop-0042/invoke

Each is a shop's own forecast. `curl localhost:8080/v2/repository/index -d '{}'` lists them with their states and bytes.
Under SageMaker the same folders, as .tar.gz in S3, are a multi-model endpoint.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 4
HIDDEN = 64


def write_model(folder: Path, shop: int) -> None:
    """Write `folder/model.onnx`: two layers of weights that are this shop's own."""
    random = np.random.default_rng(shop)
    weights = {
        "first": random.standard_normal((FEATURES, HIDDEN)).astype(np.float32),
        "second": random.standard_normal((HIDDEN, 1)).astype(np.float32),
        "constant": np.array([shop], dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["sum"]),
        helper.make_node("Add", ["sum", "constant"], ["forecast"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forecast",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")


def write_fleet(folder: Path, count: int) -> list[str]:
    """Write so many models into a folder and return their names."""
    names = [f"shop-{index:04d}" for index in range(count)]
    for index, name in enumerate(names):
        write_model(folder / name, index)
    return names


if __name__ == "__main__":
    write_fleet(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{sys.argv[2]} models are in {sys.argv[1]}; serve them with: serve --repository {sys.argv[1]}")
