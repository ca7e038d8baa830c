"""What functions are given, and what becomes of what they return."""

import importlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mooring.handler import conventions
from mooring.handler.conventions import written
from mooring.handler.errors import BodyDecodeError, HandlerError, UnsupportedContentTypeError
from mooring.handler.protocol import InferenceRequest
from mooring.handler.terms import LoadTerms


def request(body: bytes = b"[1, 2]", content_type: str = "application/json", accept: str = "") -> InferenceRequest:
    return InferenceRequest(body, content_type, accept, {})


@pytest.mark.parametrize(
    ("content_type", "body", "given"),
    [
        ("application/json", b"[1]", "[1]"),
        ("application/json; charset=utf-16", "[1]".encode("utf-16"), "[1]"),
        ("TEXT/CSV", "é".encode(), "é"),
        ("", b"[1]", "[1]"),
        ("application/jsonlines", b"1\n", b"1\n"),
        ("text/plain", b"x", b"x"),
        ("application/octet-stream", b"\xff", b"\xff"),
    ],
)
def test_json_and_csv_are_given_as_text(content_type: str, body: bytes, given: str | bytes) -> None:
    assert conventions.body_of(request(body, content_type)) == given


def test_text_that_is_none_is_the_clients_fault() -> None:
    with pytest.raises(BodyDecodeError):
        conventions.body_of(request(b"\xff", ""))


@pytest.mark.parametrize(("accept", "given"), [("", "text/csv"), ("*/*", "text/csv"), ("a/b, */*", "a/b, */*")])
def test_accept_has_the_containers_default(accept: str, given: str) -> None:
    terms = LoadTerms(variables={"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"})
    assert conventions.accept_of(request(accept=accept), terms) == given
    assert conventions.accept_of(request(accept=""), LoadTerms()) == "application/json"


@pytest.mark.parametrize(
    ("result", "accept", "body", "content_type"),
    [
        ("é", "text/plain", "é".encode(), "text/plain"),
        (b"x", "text/csv;q=0.5, application/json", b"x", "application/json"),
        (b"x", "text/csv; charset=utf-8", b"x", "text/csv; charset=utf-8"),
        (b"x", "*/*", b"x", "application/json"),
        (b"x", "text/*, a/b;q=high", b"x", "a/b"),
        ((bytearray(b"x"), "image/png"), "text/csv", b"x", "image/png"),
        (("x", "text/csv, */*"), "text/csv, */*", b"x", "text/csv"),
        ({"a": 1}, "text/csv", b'{"a":1}', "application/json"),
        (({"a": 1}, "application/problem+json"), "text/csv", b'{"a":1}', "application/problem+json"),
        ((0.1, 0.9), "text/csv", b"[0.1,0.9]", "application/json"),
        (np.array([1, 2], dtype=np.float32), "", b"[1.0,2.0]", "application/json"),
        (float("nan"), "", b"null", "application/json"),
        (None, "", b"null", "application/json"),
    ],
)
def test_results_become_a_body_and_its_type(result: Any, accept: str, body: bytes, content_type: str) -> None:
    assert written(result, accept) == (body, content_type)


def test_result_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(HandlerError, match="cannot be sent"):
        written(object(), "")
    with pytest.raises(HandlerError, match="cannot be sent"):
        conventions.default_output(object(), request(), "application/json")


@pytest.mark.parametrize("result", ["a\ud800", ("a\ud800", "text/html")])
def test_text_that_is_no_unicode_is_named(result: Any) -> None:
    with pytest.raises(HandlerError, match="returned text that is no Unicode"):
        written(result, "text/plain")


def test_default_input_is_an_array_and_objects_stay_what_they_are() -> None:
    np.testing.assert_array_equal(conventions.default_input(request(), None), np.array([1, 2]))
    assert conventions.default_input(request(b'{"a": 1}'), None) == {"a": 1}
    with pytest.raises(BodyDecodeError, match="different lengths"):
        conventions.default_input(request(b"[[1], [1, 2]]"), None)
    with pytest.raises(UnsupportedContentTypeError):
        conventions.default_input(request(content_type="video/mp4"), None)


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        (b'["a", "bc"]', "<U2"),
        (b'[["a"], ["bc"]]', "<U2"),
        (b"[1, 2]", "int64"),
        (b"[[1.5, 2]]", "float64"),
        (b"[null, 1]", "object"),
        (b"[]", "float64"),
    ],
)
def test_default_input_has_the_type_that_numpy_gives_it(body: bytes, dtype: str) -> None:
    assert conventions.default_input(request(body), None).dtype == np.dtype(dtype)


def test_long_text_among_many_takes_no_more_memory_than_the_body() -> None:
    """As numpy's own array of text it would take 4 GB: as many times the longest as there are elements."""
    texts = [""] * 30_000 + ["a" * 30_000]
    tracemalloc.start()
    try:
        given = conventions.default_input(request(json.dumps(texts).encode()), None)
        with pytest.raises(BodyDecodeError, match="different lengths"):
            conventions.default_input(request(json.dumps([texts, ["a"]]).encode()), None)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert given.tolist() == texts


def test_default_prediction_calls_what_can_be_called() -> None:
    class Estimator:
        def predict(self, rows: int) -> int:
            return rows + 1

    assert conventions.default_predict(2, lambda value: value * 2) == 4
    assert conventions.default_predict(2, Estimator()) == 3
    asked = {"inputs": "a", "parameters": {"times": 2}}
    assert conventions.default_predict(asked, lambda text, times=1: text * times) == "aa"
    with pytest.raises(HandlerError, match="The model is a int, which cannot be called"):
        conventions.default_predict(2, 5)


# --- with torch -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


@pytest.mark.parametrize(
    ("body", "content_type", "values", "dtype"),
    [
        (b"[1, 2]", "application/json", [1, 2], "float32"),
        (b"1,2\n", "text/csv", [[1, 2]], "float32"),
        (b'{"inputs": [[1]]}', "application/json", [[1]], "float32"),
        (b'{"instances": [3]}', "application/json", [3], "float32"),
    ],
)
def test_torch_module_gets_a_tensor(torch: Any, body: bytes, content_type: str, values: list[Any], dtype: str) -> None:
    tensor = conventions.default_input(request(body, content_type), torch.nn.Identity())
    assert (tensor.tolist(), tensor.dtype) == (values, getattr(torch, dtype))


def test_tensor_of_text_is_the_clients_fault(torch: Any) -> None:
    with pytest.raises(BodyDecodeError, match="no numbers"):
        conventions.default_input(request(b'["a"]'), torch.nn.Identity())


def test_prediction_needs_no_gradient_and_is_sent(torch: Any) -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    prediction = conventions.default_predict(torch.ones(1, 2), model)
    assert not prediction.requires_grad
    assert conventions.default_output(prediction, request(), "text/csv").body == b"4.0\n"
    assert written(model(torch.ones(1, 2)), "")[0] == b"[[4.0]]"


def test_torchscript_is_loaded_where_no_function_loads(torch: Any, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "some.pth"))
    (tmp_path / "._some.pth").touch()
    assert conventions.default_model(tmp_path, LoadTerms())(torch.tensor([-1.0])).tolist() == [0.0]
    torch.save({"a": 1}, tmp_path / "model.pt")
    with pytest.raises(HandlerError, match=r"model\.pt is no TorchScript file"):
        conventions.default_model(tmp_path, LoadTerms())
    (tmp_path / "model.pt").rename(tmp_path / "other.pt")
    with pytest.raises(HandlerError, match="defines no model_fn"):
        conventions.default_model(tmp_path, LoadTerms())
