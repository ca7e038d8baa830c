"""Bare ONNX models: what they may be given, when rows are batched, and whose error an error is."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mooring.handler.defaults.onnx import OnnxHandler
from mooring.handler.errors import BodyDecodeError, ModelLoadError, PredictionInputError, UnsupportedContentTypeError
from mooring.handler.images import MAX_PIXELS
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms


def request(body: bytes, content_type: str = "application/json", accept: str = "") -> InferenceRequest:
    return InferenceRequest(body, content_type, accept, {})


def write(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file = path / "model.onnx"
    onnx.save(model, file)
    return file


def double(path: Path, shape: list[Any]) -> OnnxHandler:
    """y = x + x"""
    return OnnxHandler.load(write(path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape}), LoadTerms())


def answer(handler: OnnxHandler, body: Any, **given: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (only,) = handler.respond([request(content, **given)])
    if isinstance(only, Exception):
        raise only
    return json.loads(only.body)


def test_array_object_and_single_row_mean_the_same(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 2])
    assert answer(handler, [[1, 2]]) == [[2, 4]]
    assert answer(handler, {"instances": [[1, 2]]}) == [[2, 4]]
    assert answer(handler, {"inputs": {"x": [[1, 2]]}}) == [[2, 4]]
    assert answer(handler, {"x": [[1, 2]]}) == [[2, 4]]
    assert answer(handler, [1, 2]) == [2, 4]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([[1, 2, 3]], "1 x 3, which does not fit.*'x', any x 2, float32"),
        ([[1, 2], [3]], "not a regular array"),
        ([["a", "b"]], "does not fit float32"),
        ({"y": [[1, 2]]}, "missing: 'x'; not an input: 'y'"),
        (7, "a scalar"),
    ],
)
def test_input_that_does_not_fit_is_told_what_would(tmp_path: Path, body: Any, problem: str) -> None:
    with pytest.raises(PredictionInputError, match=problem):
        answer(double(tmp_path, ["n", 2]), body)


def test_error_of_one_request_spoils_no_other(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 2])
    answers = handler.respond([request(b"[[1,2]]"), request(b"[[1]]"), request(b"[[3,4]]"), request(b"[")])
    kinds = [InferenceResponse, PredictionInputError, InferenceResponse, BodyDecodeError]
    assert [type(one) for one in answers] == kinds
    assert [json.loads(one.body) for one in answers if isinstance(one, InferenceResponse)] == [[[2, 4]], [[6, 8]]]


def test_independent_rows_are_batched_and_come_back_to_their_requests(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 2])
    assert handler.max_batch_rows > 1
    answers = handler.respond([request(json.dumps([[n, n]] * (n + 1)).encode()) for n in range(5)])
    assert [json.loads(one.body) for one in answers if isinstance(one, InferenceResponse)] == [
        [[2.0 * n, 2.0 * n]] * (n + 1) for n in range(5)
    ]


def test_rows_that_depend_on_each_other_are_not_batched(tmp_path: Path) -> None:
    """The output has the input's first dimension, but each row knows of the others."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["sum"]), helper.make_node("Add", ["x", "sum"], ["y"])]
    file = write(tmp_path, nodes, {"x": ["n", 2]}, {"y": ["n", 2]})
    assert OnnxHandler.load(file, LoadTerms()).max_batch_rows == 1


def test_fixed_first_dimension_is_not_batched(tmp_path: Path) -> None:
    assert double(tmp_path, [1, 2]).max_batch_rows == 1


def test_picture_is_decoded_and_resized_to_what_the_model_takes(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 1, 2, 2])
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(buffer, "PNG")
    assert answer(handler, buffer.getvalue(), content_type="application/x-image") == [[[18, 18], [18, 18]]]
    assert answer(handler, buffer.getvalue(), content_type="image/png") == [[[18, 18], [18, 18]]]


@pytest.mark.parametrize("size", [0, 8, 40])
def test_truncated_picture_is_the_callers_error(tmp_path: Path, size: int) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    with pytest.raises(BodyDecodeError):
        answer(double(tmp_path, ["n", 1, 2, 2]), buffer.getvalue()[:size], content_type="application/x-image")


def test_picture_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (MAX_PIXELS // 5000, 5001)).save(buffer, "PNG")
    with pytest.raises(BodyDecodeError, match="over the limit of 100,000,000 pixels"):
        answer(double(tmp_path, ["n", 1, 2, 2]), buffer.getvalue(), content_type="application/x-image")


def test_picture_to_a_model_of_numbers_is_an_unsupported_type(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedContentTypeError):
        answer(double(tmp_path, ["n", 2]), b"", content_type="application/x-image")


def test_damaged_model_is_told_without_the_servers_paths(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no protocol buffer")
    with pytest.raises(ModelLoadError, match=r"^model\.onnx cannot be loaded") as refused:
        OnnxHandler.load(file, LoadTerms())
    assert str(tmp_path) not in str(refused.value)


def test_npy_answer_is_the_array_itself(tmp_path: Path) -> None:
    (only,) = double(tmp_path, ["n", 2]).respond([request(b"[[1,2]]", accept="application/x-npy")])
    assert isinstance(only, InferenceResponse)
    array = np.load(io.BytesIO(only.body))
    assert (array.dtype, array.tolist()) == (np.float32, [[2, 4]])
