"""Bare ONNX models: what they may be given, when rows are batched, and whose error an error is."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import layered_model
from onnx import TensorProto, helper
from PIL import Image
from servers import wait_until

from mooring.contract.errors import CallerError
from mooring.handler.defaults.onnx import OnnxHandler, _batches
from mooring.handler.defaults.onnx_tiers import open_session
from mooring.handler.errors import (
    BodyDecodeError,
    LoadCancelledError,
    ModelLoadError,
    PredictionInputError,
    UnsupportedAcceptError,
    UnsupportedContentTypeError,
)
from mooring.handler.images import MAX_PIXELS
from mooring.handler.media_types import OPEN_INFERENCE
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import Cancellation, LoadTerms


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
    return OnnxHandler.load(
        write(path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape}), LoadTerms()
    )


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
        ([["1", "2"]], "it holds text, which does not fit float32"),
        ([[1, "nan"]], "does not fit float32"),
        ({"y": [[1, 2]]}, "missing: 'x'; not an input: 'y'"),
        (7, "a scalar"),
        ([], "0, which does not fit"),
        ([[]], "1 x 0, which does not fit"),
        ([[], []], "2 x 0, which does not fit"),
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


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, [50, 150]),
        ({"mooring.picture_fit": "scale"}, [50, 150]),
        ({"mooring.picture_fit": "crop"}, [80, 120]),
        ({"mooring.picture_fit": "crop", "mooring.picture_shorter_side": "4"}, [90, 110]),
    ],
)
def test_picture_comes_to_the_models_size_as_its_metadata_say(
    tmp_path: Path, metadata: dict[str, str], expected: list[int]
) -> None:
    """Six columns of 0, 20 and so on, doubled by the model: all are scaled to two, or the middle ones are cut out."""
    shape = ["n", 1, 2, 2]
    file = write(tmp_path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape})
    with_metadata(file, metadata)
    columns = np.tile(np.arange(0, 120, 20, dtype=np.uint8), (2, 1))
    buffer = io.BytesIO()
    Image.fromarray(columns).save(buffer, "PNG")
    (found,) = answer(OnnxHandler.load(file, LoadTerms()), buffer.getvalue(), content_type="image/png")
    assert np.abs(np.array(found) - expected).max() <= 4


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"mooring.picture_fit": "stretch"}, 'mooring.picture_fit is "stretch"; expected scale or crop'),
        ({"mooring.picture_shorter_side": "0"}, 'mooring.picture_shorter_side is "0"; expected a number of pixels'),
        ({"mooring.picture_shorter_side": "9" * 99}, "expected a number of pixels"),
    ],
)
def test_metadata_of_pictures_that_cannot_be_used_are_named(
    tmp_path: Path, metadata: dict[str, str], problem: str
) -> None:
    shape = ["n", 1, 2, 2]
    file = write(tmp_path, [helper.make_node("Add", ["x", "x"], ["y"])], {"x": shape}, {"y": shape})
    with_metadata(file, metadata)
    with pytest.raises(ModelLoadError, match=problem):
        OnnxHandler.load(file, LoadTerms())


def with_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Give a model file metadata of its own."""
    model = onnx.load(file)
    helper.set_model_props(model, metadata)
    onnx.save(model, file)


@pytest.mark.parametrize("size", [0, 8, 40])
def test_truncated_picture_is_the_callers_error(tmp_path: Path, size: int) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "PNG")
    with pytest.raises(BodyDecodeError):
        answer(double(tmp_path, ["n", 1, 2, 2]), buffer.getvalue()[:size], content_type="application/x-image")


def damaged(kind: str, place: int, value: int) -> bytes:
    """A picture with another byte at a place of its head."""
    buffer = io.BytesIO()
    Image.fromarray((np.arange(64 * 64 * 3) % 251).astype(np.uint8).reshape(64, 64, 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    content[place] = value
    return bytes(content)


# The place is of what the pixels are, of where they are, and of how they are compressed.
@pytest.mark.parametrize(("kind", "place", "value"), [("DDS", 80, 0), ("AVIF", 96, 114), ("PNG", 50, 0)])
def test_damaged_picture_spoils_no_other(tmp_path: Path, kind: str, place: int, value: int) -> None:
    """Pillow raises errors of many types, each of its formats others."""
    bodies = [damaged("PNG", 0, 137), damaged(kind, place, value), damaged("PNG", 0, 137)]
    handler = double(tmp_path, ["n", 1, 2, 2])
    answers = handler.respond([request(body, "application/x-image") for body in bodies])
    assert [type(each) for each in answers] == [InferenceResponse, BodyDecodeError, InferenceResponse]


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


def test_load_that_nobody_wants_any_more_stops(tmp_path: Path) -> None:
    file = layered_model(tmp_path / "m", 40) / "model.onnx"
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(open_session, file, 1, cancellation=cancellation)
        wait_until(lambda: cancellation.is_under_way)
        cancellation.cancel()
        with pytest.raises(LoadCancelledError):
            loading.result()
    with pytest.raises(LoadCancelledError):
        open_session(file, 1, cancellation=cancellation)


def test_requests_of_one_batch_are_each_answered_in_the_type_they_accept(tmp_path: Path) -> None:
    accepts = ["text/csv", "application/json", "image/png", "application/json"]
    requests = [request(b"[[%d,2]]" % index, accept=accept) for index, accept in enumerate(accepts)]
    csv, json, refused, other = double(tmp_path, ["n", 2]).respond(requests)
    assert isinstance(refused, UnsupportedAcceptError)
    assert [made.body for made in (csv, json, other) if isinstance(made, InferenceResponse)] == [
        b"0.0,4.0\n",
        b"[[2.0,4.0]]",
        b"[[6.0,4.0]]",
    ]


def test_batch_whose_type_cannot_be_written_tells_each_request(tmp_path: Path) -> None:
    answers = double(tmp_path, ["n", 2]).respond([request(b"[[1,2]]", accept="image/png")] * 3)
    assert [type(each) for each in answers] == [UnsupportedAcceptError] * 3


def test_npy_answer_is_the_array_itself(tmp_path: Path) -> None:
    (only,) = double(tmp_path, ["n", 2]).respond([request(b"[[1,2]]", accept="application/x-npy")])
    assert isinstance(only, InferenceResponse)
    array = np.load(io.BytesIO(only.body))
    assert (array.dtype, array.tolist()) == (np.float32, [[2, 4]])


def constant(name: str, values: Any, kind: int = TensorProto.INT64) -> Any:
    array = np.array(values)
    tensor = helper.make_tensor(name, kind, array.shape, array.ravel().tolist())
    return helper.make_node("Constant", [], [name], value=tensor)


# Models that look as if their rows could be batched, and whose rows know of each other.
ENTANGLED = {
    "time first, summed up over time": [
        constant("axis", 0),
        helper.make_node("CumSum", ["x", "axis"], ["y"]),
    ],
    "time first, seen backwards": [
        constant("axis", 0),
        helper.make_node("CumSum", ["x", "axis"], ["y"], reverse=1),
    ],
    "normalised over the batch": [
        constant("axes", [0]),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ],
    "scaled by the largest of the batch": [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Div", ["x", "largest"], ["y"]),
    ],
    "quantised with a scale of the batch": [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ],
    "sorted over the batch": [
        constant("axes", [0]),
        helper.make_node("Shape", ["x"], ["shape"]),
        constant("zero", [0]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("TopK", ["x", "rows"], ["y", "places"], axis=0),
    ],
    "told its place in the batch": [
        constant("zero", 0),
        constant("one", 1),
        constant("column", [1]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Range", ["zero", "rows", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "column"], ["added"]),
        helper.make_node("Add", ["x", "added"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", ENTANGLED)
def test_rows_that_know_of_each_other_are_answered_as_if_alone(tmp_path: Path, name: str) -> None:
    handler = OnnxHandler.load(write(tmp_path, ENTANGLED[name], {"x": ["n", 2]}, {"y": ["n", 2]}), LoadTerms())
    assert handler.max_batch_rows == 1
    requests = [request(json.dumps(rows).encode()) for rows in ([[1, 2], [3, 1]], [[5, 4], [0, 2]], [[9, 8]])]
    together = [one.body for one in handler.respond(requests) if isinstance(one, InferenceResponse)]
    alone = [one.body for each in requests for one in handler.respond([each]) if isinstance(one, InferenceResponse)]
    assert together == alone
    assert len(alone) == 3


# Models whose rows are independent, in ways that a trial could take for something else.
INDEPENDENT: dict[str, tuple[list[Any], list[Any]]] = {
    "normalised over columns": (
        [
            constant("axes", [1]),
            helper.make_node("ReduceMean", ["x", "axes"], ["m"]),
            helper.make_node("Sub", ["x", "m"], ["y"]),
        ],
        ["n", 3],
    ),
    "of any width": ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], ["n", "w"]),
    "a logarithm": ([helper.make_node("Log", ["x"], ["y"])], ["n", 3]),
    "a picture of any size": (
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[7, 7], pads=[3, 3, 3, 3])],
        ["n", 1, "h", "w"],
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_rows_that_are_independent_are_found_to_be(tmp_path: Path, name: str) -> None:
    nodes, shape = INDEPENDENT[name]
    assert OnnxHandler.load(write(tmp_path, nodes, {"x": shape}, {"y": shape}), LoadTerms()).max_batch_rows > 1


def test_row_that_the_model_drops_takes_no_other_requests_answer(tmp_path: Path) -> None:
    """Rows behind it moved up, to the requests before them."""
    nodes = [
        constant("axis", [1]),
        helper.make_node("ReduceMax", ["x", "axis"], ["largest"], keepdims=0),
        helper.make_node("Less", ["largest", "limit"], ["is_kept"]),
        helper.make_node("Compress", ["x", "is_kept"], ["y"], axis=0),
    ]
    file = write(tmp_path, [constant("limit", 1000.0, TensorProto.FLOAT), *nodes], {"x": ["n", 2]}, {"y": ["n", 2]})
    handler = OnnxHandler.load(file, LoadTerms())
    assert handler.max_batch_rows > 1
    for bodies in ([b"[[1,2]]", b"[[5000,0]]", b"[[3,4]]"], [b"[[1,2]]", b"[[5000,0],[5,6]]", b"[[3,4]]"]):
        together = [
            each.body for each in handler.respond([request(body) for body in bodies]) if not isinstance(each, Exception)
        ]
        alone = [
            each.body for body in bodies for each in handler.respond([request(body)]) if not isinstance(each, Exception)
        ]
        assert together == alone
        assert together[2] == b"[[3.0,4.0]]"


def detector(path: Path) -> OnnxHandler:
    """Finds in a row, or a picture, the pixels above 100, and how many there are."""
    nodes = [
        helper.make_node("Greater", ["x", "limit"], ["is_found"]),
        helper.make_node("NonZero", ["is_found"], ["places"]),
        helper.make_node("Transpose", ["places"], ["found"]),
        helper.make_node("Cast", ["found"], ["boxes"], to=TensorProto.FLOAT),
    ]
    limit = constant("limit", 100.0, TensorProto.FLOAT)
    file = write(path, [limit, *nodes], {"x": ["n", 1, 1, 4]}, {"boxes": ["found", 4]})
    return OnnxHandler.load(file, LoadTerms())


def picture(*columns: int) -> bytes:
    """A PNG of one line."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([columns], np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("columns", "boxes"),
    [((0, 0, 0, 0), []), ((0, 200, 0, 250), [[0, 0, 0, 1], [0, 0, 0, 3]])],
)
def test_all_that_is_found_in_a_picture_is_told(tmp_path: Path, columns: tuple[int, ...], boxes: list[Any]) -> None:
    """What has no batch dimension is not cut to its first item, also where it has none."""
    handler = detector(tmp_path)
    assert answer(handler, picture(*columns), content_type="image/png") == boxes
    assert answer(handler, [[[*columns]]]) == boxes
    tensors = {"inputs": [{"name": "x", "shape": [1, 1, 4], "datatype": "FP32", "data": [*columns]}]}
    assert answer(handler, tensors)["outputs"][0]["shape"] == [len(boxes), 4]


def test_picture_in_which_nothing_is_found_spoils_no_other(tmp_path: Path) -> None:
    requests = [request(picture(0, columns, 0, columns), "image/png") for columns in (0, 200, 0)]
    told = [_told(each) for each in detector(tmp_path).respond(requests)]
    assert told == [b"[]", b"[[0.0,0.0,0.0,1.0],[0.0,0.0,0.0,3.0]]", b"[]"]


def total(path: Path) -> OnnxHandler:
    """y = a + b"""
    shape = ["n", 2]
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return OnnxHandler.load(write(path, [node], {"a": shape, "b": shape}, {"y": shape}), LoadTerms())


def pair(a: Any, b: Any) -> InferenceRequest:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array(a, np.float32).reshape(-1, 2), b=np.array(b, np.float32).reshape(-1, 2))
    return request(buffer.getvalue(), "application/x-npz")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pair([[0, 0], [0, 0]], []), pair([[10, 10]], [[1, 1]])),
        (pair([[0, 0]] * 3, []), pair([[10, 10]], [[1, 1]])),
        (pair([[5, 5], [6, 6]], [[7, 7]]), pair([[1, 1]], [[2, 2], [3, 3]])),
        (pair([[5, 5], [6, 6]], [[7, 7]]), pair([[10, 10]], [[1, 1]])),
    ],
)
def test_rows_of_different_clients_never_meet(
    tmp_path: Path, first: InferenceRequest, second: InferenceRequest
) -> None:
    """Inputs that differ in their numbers of rows would be repeated, or shift the rows of all behind them."""
    handler = total(tmp_path)
    assert handler.max_batch_rows > 1
    for requests in ([first, second], [second, first], [first, second, first, second, second]):
        alone = [_told(*handler.respond([each])) for each in requests]
        assert [_told(each) for each in handler.respond(requests)] == alone


def _told(answered: InferenceResponse | Exception) -> Any:
    """Return what a client is told."""
    return answered.body if isinstance(answered, InferenceResponse) else (type(answered), str(answered))


def test_model_whose_answers_never_differ_is_not_batched(tmp_path: Path) -> None:
    """Nothing could be seen of what its rows know of each other."""
    nodes = [helper.make_node("Sub", ["x", "x"], ["y"])]
    assert OnnxHandler.load(write(tmp_path, nodes, {"x": ["n", 2]}, {"y": ["n", 2]}), LoadTerms()).max_batch_rows == 1


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ([1, 1, 1], 64, [[0, 1, 2]]),
        ([3, 2, 2, 4], 5, [[0, 1], [2], [3]]),
        ([1, 1000, 1, 1], 64, [[0], [1], [2, 3]]),
        ([0, 0], 1, [[0], [1]]),
        ([64, 64], 64, [[0], [1]]),
    ],
)
def test_batch_has_no_more_rows_than_it_may(rows: list[int], most: int, expected: list[list[int]]) -> None:
    assert list(_batches(range(len(rows)), dict(enumerate(rows)), most)) == expected


def test_many_rows_of_one_request_and_few_of_others_are_all_answered(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 1])
    sizes = [1, 1000, 63, 2]
    answers = handler.respond([request(json.dumps([[size]] * size).encode()) for size in sizes])
    assert [json.loads(one.body) for one in answers if isinstance(one, InferenceResponse)] == [
        [[2.0 * size]] * size for size in sizes
    ]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([[1e39, 0]], "beyond the range of float32"),
        ([[None, {}]], "holds null, objects, which does not fit float32"),
        ("1,x", "does not fit"),
    ],
)
def test_number_is_never_cut_to_fit(tmp_path: Path, body: Any, problem: str) -> None:
    with pytest.raises(PredictionInputError, match=problem):
        answer(double(tmp_path, ["n", 2]), body)


def test_null_is_a_float_that_is_no_number(tmp_path: Path) -> None:
    assert answer(double(tmp_path, ["n", 2]), [[None, 1]]) == [[None, 2]]


def bytes_model(path: Path) -> OnnxHandler:
    """y = x, of text."""
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path / "m.onnx")
    return OnnxHandler.load(path / "m.onnx", LoadTerms())


def whole_numbers(path: Path) -> OnnxHandler:
    """y = x, of bytes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path / "m.onnx")
    return OnnxHandler.load(path / "m.onnx", LoadTerms())


def test_text_is_taken_as_json_csv_plain_and_tensors(tmp_path: Path) -> None:
    handler = bytes_model(tmp_path)
    assert answer(handler, ["a", "b"]) == ["a", "b"]
    assert answer(handler, "größe".encode(), content_type="text/plain") == "größe"
    tensors = {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["é"]}]}
    assert answer(handler, tensors)["outputs"][0]["data"] == ["é"]
    with pytest.raises(PredictionInputError, match="null, text, which does not fit text"):
        answer(handler, ["a", None])


@pytest.mark.parametrize("value", [[[256, 0]], [[-1, 0]], [[0.5, 0]], [["1", 0]]])
def test_whole_number_that_does_not_fit_is_refused(tmp_path: Path, value: Any) -> None:
    handler = whole_numbers(tmp_path)
    assert answer(handler, [[255, 0]]) == [[255, 0]]
    assert answer(handler, b"255,0\n", content_type="text/csv") == [[255, 0]]
    with pytest.raises(PredictionInputError, match=r"does not fit|beyond the range"):
        answer(handler, value)
    buffer = io.BytesIO()
    np.save(buffer, np.array([[256, 0]]))
    with pytest.raises(PredictionInputError, match="beyond the range of uint8"):
        answer(handler, buffer.getvalue(), content_type="application/x-npy")


X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def test_request_of_the_protocol_is_answered_in_it(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 2])
    for content_type in (OPEN_INFERENCE, "application/json"):
        body = json.dumps({"id": "7", "inputs": [X]}).encode()
        (only,) = handler.respond([InferenceRequest(body, content_type, "", {"x-mooring-model-name": "m"})])
        assert isinstance(only, InferenceResponse)
        assert json.loads(only.body) == {
            "model_name": "m",
            "model_version": "1",
            "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2, 4]}],
        }


def test_requests_of_the_protocol_are_batched_with_others(tmp_path: Path) -> None:
    handler = double(tmp_path, ["n", 2])
    tensors = json.dumps({"inputs": [X]}).encode()
    answers = handler.respond([request(tensors, OPEN_INFERENCE), request(b"[[3,4]]"), request(tensors, OPEN_INFERENCE)])
    bodies = [json.loads(one.body) for one in answers if isinstance(one, InferenceResponse)]
    assert [bodies[0]["outputs"][0]["data"], bodies[1], bodies[2]["outputs"][0]["data"]] == [[2, 4], [[6, 8]], [2, 4]]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"inputs": [X | {"name": "z"}]}, "missing: 'x'; not an input: 'z'"),
        ({"inputs": [X | {"shape": [2, 1]}]}, "2 x 1, which does not fit.*'x', any x 2, float32"),
        ({"inputs": [X | {"datatype": "BYTES", "data": ["a", "b"]}]}, "holds text, which does not fit float32"),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, "no output 'z'; the model has 'y'"),
    ],
)
def test_tensor_that_does_not_fit_is_told_what_would(tmp_path: Path, given: Any, problem: str) -> None:
    with pytest.raises(CallerError, match=problem):
        answer(double(tmp_path, ["n", 2]), given, content_type=OPEN_INFERENCE)


def test_unsupported_type_lists_what_the_model_takes(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedContentTypeError) as refused:
        answer(double(tmp_path, ["n", 2]), b"", content_type="text/plain")
    assert "application/x-npy" in str(refused.value)
    assert OPEN_INFERENCE not in str(refused.value)


def test_metadata_names_inputs_and_outputs_with_their_datatypes(tmp_path: Path) -> None:
    metadata = double(tmp_path, ["n", 2]).metadata()
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
