"""The Open Inference Protocol: tensors as JSON and as bytes, there and back, and what is told of what is none."""

import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.handler import codecs
from mooring.handler.media_types import OPEN_INFERENCE, TRITON_BINARY, parse
from mooring.handler.open_inference import (
    DATATYPES,
    TensorRequest,
    TensorRequestError,
    decode_request,
    is_tensor_request,
)
from mooring.handler.open_inference_answers import encode_response
from mooring.handler.protocol import InferenceRequest

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
PLAIN = parse(OPEN_INFERENCE)


def tensor(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape} | more


def binary(head: dict[str, Any], *tails: bytes) -> tuple[bytes, str]:
    """A body with tensors after its JSON, and its content type."""
    first = json.dumps(head).encode()
    return b"".join((first, *tails)), f"{OPEN_INFERENCE}; header-length={len(first)}"


def decoded(head: dict[str, Any], *tails: bytes) -> TensorRequest:
    body, content_type = binary(head, *tails)
    return decode_request(body, parse(content_type))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_arrive_as_their_type_in_both_forms(datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]], DATATYPES[datatype])
    as_json = decoded({"inputs": [tensor("x", datatype, [2, 2], data=[0, 1, 1, 0])]})
    nested = decoded({"inputs": [tensor("x", datatype, [2, 2], data=[[0, 1], [1, 0]])]})
    size = {"binary_data_size": array.nbytes}
    as_bytes = decoded({"inputs": [tensor("x", datatype, [2, 2], parameters=size)]}, array.tobytes())
    for request in (as_json, nested, as_bytes):
        assert request.arrays["x"].dtype == array.dtype
        assert np.array_equal(request.arrays["x"], array)
        assert request.arrays["x"].flags.aligned


def test_text_arrives_as_bytes_in_both_forms() -> None:
    data = b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    as_json = decoded({"inputs": [tensor("x", "BYTES", [2], data=["é", ""])]})
    as_bytes = decoded({"inputs": [tensor("x", "BYTES", [2], parameters={"binary_data_size": len(data)})]}, data)
    for request in (as_json, as_bytes):
        assert request.arrays["x"].tolist() == ["é".encode(), b""]


def test_brain_floats_become_floats() -> None:
    data = np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16
    request = decoded(
        {"inputs": [tensor("x", "BF16", [2], parameters={"binary_data_size": 4})]}, data.astype("<u2").tobytes()
    )
    assert request.arrays["x"].dtype == np.float32
    assert request.arrays["x"].tolist() == [1.5, -2.0]


def test_large_whole_numbers_keep_their_last_digit() -> None:
    request = decoded({"inputs": [tensor("x", "UINT64", [2], data=[1, 2**64 - 1])]})
    assert request.arrays["x"].tolist() == [1, 2**64 - 1]


def test_tensors_follow_the_json_in_the_order_of_inputs() -> None:
    inputs = [
        tensor("a", "INT32", [1], parameters={"binary_data_size": 4}),
        tensor("b", "INT32", [1], data=[2]),
        tensor("c", "INT8", [2], parameters={"binary_data_size": 2}),
    ]
    request = decoded({"id": "7", "inputs": inputs}, b"\1\0\0\0", b"\3\4")
    assert {name: array.tolist() for name, array in request.arrays.items()} == {"a": [1], "b": [2], "c": [3, 4]}
    assert request.id == "7"


def test_platforms_form_gives_the_length_in_the_content_type() -> None:
    head = json.dumps({"inputs": [tensor("x", "INT8", [2], parameters={"binary_data_size": 2})]}).encode()
    request = decode_request(head + b"\1\2", parse(f"{TRITON_BINARY};json-header-size={len(head)}"))
    assert request.arrays["x"].tolist() == [1, 2]
    body, content_type, headers = encode_response(
        TensorRequest({}, is_binary=True, is_triton=True), "m", [("y", np.array([1], np.int8))]
    )
    assert body.endswith(b"\1")
    assert content_type == f"{TRITON_BINARY};json-header-size={len(body) - 1}"
    assert headers == {}


X = tensor("x", "FP32", [2], data=[1, 2])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no JSON object"),
        ({}, 'no "inputs"'),
        ({"inputs": []}, 'no "inputs"'),
        ({"inputs": {"x": 1}}, '"inputs" are no list of objects'),
        ({"inputs": [X | {"name": ""}]}, "an input has no name"),
        ({"inputs": [X, X]}, "input 'x' is there twice"),
        ({"inputs": [X | {"datatype": "FP31"}]}, "input 'x': datatype 'FP31' is none of BOOL"),
        ({"inputs": [X | {"datatype": None}]}, "datatype 'None'"),
        ({"inputs": [X | {"datatype": ["FP32"]}]}, "datatype"),
        ({"inputs": [X | {"shape": [3]}]}, r"has 2 elements, but its shape \[3\] has 3"),
        ({"inputs": [X | {"shape": [-2]}]}, "no list of sizes"),
        ({"inputs": [X | {"shape": [2.0]}]}, "no list of sizes"),
        ({"inputs": [X | {"shape": [10**18, 10**18, 10**18]}]}, "has 2 elements"),
        ({"inputs": [X | {"shape": [1] * 50 + [2]}]}, "more than 32 dimensions"),
        ({"inputs": [X | {"data": ["1", "b"]}]}, "holds text, which does not fit float32"),
        ({"inputs": [X | {"data": [[1], [2, 3]]}]}, "not a regular array"),
        ({"inputs": [X | {"datatype": "INT32", "data": [1.5, 2]}]}, "float64.*does not fit int32"),
        ({"inputs": [X | {"datatype": "UINT8", "data": [256, 2]}]}, "beyond the range of uint8"),
        ({"inputs": [X | {"datatype": "UINT8", "data": [-1, 2]}]}, "beyond the range of uint8"),
        ({"inputs": [X | {"data": [1e300, 2]}]}, "beyond the range of float32"),
        ({"inputs": [X | {"datatype": "BOOL", "data": [0, 2]}]}, "do not fit bool"),
        ({"inputs": [X | {"datatype": "BYTES"}]}, "does not fit text"),
        ({"inputs": [tensor("x", "FP32", [1])]}, 'neither "data" nor'),
        ({"inputs": [tensor("x", "FP32", [1], parameters={"shared_memory_region": "r"})]}, "shared memory"),
        ({"inputs": [tensor("x", "FP32", [1], parameters={"binary_data_size": 4})]}, "but 0 bytes follow"),
        ({"inputs": [tensor("x", "FP32", [1], parameters={"binary_data_size": True})]}, "binary_data_size is True"),
        ({"inputs": [tensor("x", "FP32", [1], parameters=[1])]}, "are no object"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 2}}]}, "classification"),
        ({"inputs": [X], "outputs": ["y"]}, '"outputs" are no list'),
        ({"inputs": [X], "id": 7}, '"id" is no text'),
    ],
)
def test_request_that_is_none_is_told_why(given: Any, problem: str) -> None:
    with pytest.raises(TensorRequestError, match=problem):
        decode_request(json.dumps(given).encode(), PLAIN)


@pytest.mark.parametrize(
    ("datatype", "tail", "problem"),
    [
        ("FP32", b"123", "no whole number of FP32"),
        ("BYTES", b"\1\0", "element 0 is cut short"),
        ("BYTES", b"\xff\xff\xff\xff1", "element 0 is cut short"),
        ("FP32", b"12345678", "2 elements, but its shape"),
    ],
)
def test_bytes_that_are_no_tensor_are_told_why(datatype: str, tail: bytes, problem: str) -> None:
    with pytest.raises(TensorRequestError, match=problem):
        decoded({"inputs": [tensor("x", datatype, [1], parameters={"binary_data_size": len(tail)})]}, tail)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT64", "BOOL"])
@pytest.mark.parametrize("few", ["", 1.5, None])
def test_text_among_numbers_takes_no_more_memory_than_the_body(datatype: str, few: Any) -> None:
    """As numpy's own array of text it would take 4 GB: as many times the longest as there are elements."""
    data = [few] * 30_000 + ["a" * 30_000]
    body = json.dumps({"inputs": [tensor("x", datatype, [len(data)], data=data)]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(TensorRequestError, match="text, which does not fit"):
            decode_request(body, PLAIN)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_bytes_that_belong_to_no_input_are_an_error() -> None:
    with pytest.raises(TensorRequestError, match="3 bytes are left"):
        decoded({"inputs": [X]}, b"abc")


@pytest.mark.parametrize("length", ["0", "-1", "x", "99999", "9" * 30, "²"])
def test_length_of_the_json_that_cannot_be_is_an_error(length: str) -> None:
    with pytest.raises(TensorRequestError, match="the length of its JSON"):
        decode_request(b"{}", parse(f"{OPEN_INFERENCE}; header-length={length}"))


def test_answer_has_what_was_wanted_as_it_was_wanted() -> None:
    asked = TensorRequest({}, id="7", outputs={"b": True, "a": False})
    outputs = [("a", np.array([[1.5, np.nan]], np.float32)), ("b", np.array(["x", "yz"])), ("c", np.zeros(1))]
    body, content_type, headers = encode_response(asked, "m", outputs)
    length = int(headers["inference-header-content-length"])
    assert content_type == "application/octet-stream"
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "b", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
        ],
    }
    assert body[length:] == b"\1\0\0\0x\2\0\0\0yz"


def test_output_that_is_not_there_is_the_callers_error() -> None:
    with pytest.raises(TensorRequestError, match="no output 'z'; the model has 'y'"):
        encode_response(TensorRequest({}, outputs={"z": False}), "m", [("y", np.zeros(1))])


def test_bytes_that_are_no_text_can_only_be_sent_as_bytes() -> None:
    outputs = [("y", np.array([b"\xff"], object))]
    with pytest.raises(TensorRequestError, match="ask for it with the parameter binary_data"):
        encode_response(TensorRequest({}), "m", outputs)
    assert encode_response(TensorRequest({}, is_binary=True), "m", outputs)[0].endswith(b"\1\0\0\0\xff")


def test_objects_are_no_output() -> None:
    with pytest.raises(TypeError, match="objects"):
        encode_response(TensorRequest({}), "m", [("y", np.array([{"a": 1}], object))])


def test_users_functions_get_the_only_array_or_all_by_name() -> None:
    one = json.dumps({"inputs": [X]}).encode()
    two = json.dumps({"inputs": [X, X | {"name": "y"}]}).encode()
    assert codecs.decode(one, OPEN_INFERENCE).tolist() == [1, 2]
    assert {name: array.tolist() for name, array in codecs.decode(two, OPEN_INFERENCE).items()} == {
        "x": [1, 2],
        "y": [1, 2],
    }


def test_users_values_become_named_outputs() -> None:
    body, content_type = codecs.encode({"label": ["a"], "score": np.array([0.5], np.float32)}, OPEN_INFERENCE)
    assert content_type == "application/json"
    assert [(item["name"], item["datatype"], item["data"]) for item in json.loads(body)["outputs"]] == [
        ("label", "BYTES", ["a"]),
        ("score", "FP32", [0.5]),
    ]
    assert json.loads(codecs.encode([1, 2], OPEN_INFERENCE)[0])["outputs"][0]["name"] == "output_0"


def test_answer_to_a_request_of_the_protocol_has_its_id_and_model() -> None:
    body = json.dumps({"id": "7", "inputs": [X], "parameters": {"binary_data_output": True}}).encode()
    request = InferenceRequest(body, OPEN_INFERENCE, OPEN_INFERENCE, {"x-mooring-model-name": "m"})
    answer = codecs.respond(np.array([1], np.int8), request, request.accept)
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:length])
    assert (head["id"], head["model_name"], answer.body[length:]) == ("7", "m", b"\1")


def test_several_arrays_are_several_outputs() -> None:
    request = InferenceRequest(json.dumps({"inputs": [X]}).encode(), OPEN_INFERENCE, OPEN_INFERENCE, {})
    answer = codecs.respond([np.zeros((1, 2), np.float32), np.array([1])], request, "")
    assert [(item["name"], item["shape"]) for item in json.loads(answer.body)["outputs"]] == [
        ("output_0", [1, 2]),
        ("output_1", [1]),
    ]


def test_other_answers_are_what_the_client_accepts() -> None:
    answer = codecs.respond([1, 2], InferenceRequest(b"", "application/json", "", {}), "text/csv")
    assert (answer.body, answer.content_type) == (b"1\n2\n", "text/csv")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"inputs": [X]}, True),
        ({"inputs": [[1]]}, False),
        ({"inputs": {"x": 1}}, False),
        ({"inputs": []}, False),
        ([], False),
    ],
)
def test_request_of_the_protocol_is_known_by_its_datatypes(value: Any, expected: bool) -> None:
    assert is_tensor_request(value) is expected


ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda name: st.lists(st.binary(min_size=8, max_size=8), max_size=5).map(
        lambda parts: (name, np.frombuffer(b"".join(parts), DATATYPES[name] if name != "BOOL" else np.uint8))
    )
)


@given(given=ARRAYS)
@settings(max_examples=150, deadline=None)
def test_any_tensor_survives_there_and_back_as_bytes(given: tuple[str, Any]) -> None:
    datatype, array = given
    size = {"binary_data_size": array.nbytes}
    request = decoded({"inputs": [tensor("x", datatype, [array.size], parameters=size)]}, array.tobytes())
    received = request.arrays["x"]
    body, _, headers = encode_response(TensorRequest({}, is_binary=True), "m", [("y", received)])
    if datatype != "BOOL":
        assert body[int(headers["inference-header-content-length"]) :] == array.tobytes()
    assert json.loads(body[: int(headers["inference-header-content-length"])])["outputs"][0]["datatype"] == datatype


@given(body=st.binary(max_size=80), length=st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_garbage_is_the_callers_error(body: bytes, length: int) -> None:
    with pytest.raises(TensorRequestError):
        decode_request(body, parse(f"{OPEN_INFERENCE}; header-length={length}"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats() | st.sampled_from([*DATATYPES, "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size", "binary_data"]),
            inner,
        )
    ),
)


@given(
    inputs=st.lists(ANYTHING, max_size=3),
    outputs=ANYTHING,
    tail=st.binary(max_size=9),
    datatype=st.sampled_from([*DATATYPES]),
    data=ANYTHING,
    shape=st.lists(st.integers(0, 3)),
)
@settings(max_examples=300, deadline=None)
def test_json_of_any_shape_is_a_request_or_the_callers_error(
    inputs: Any, outputs: Any, tail: bytes, datatype: str, data: Any, shape: Any
) -> None:
    item = tensor("x", datatype, shape, data=data)
    for head in ({"inputs": inputs, "outputs": outputs}, {"inputs": [item], "outputs": outputs}, {"inputs": [item]}):
        body, content_type = binary(head, tail)
        with contextlib.suppress(TensorRequestError):
            decode_request(body, parse(content_type))
