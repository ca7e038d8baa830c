"""The toolkits' codecs give the bytes and arrays that they always gave."""

import datetime as dt
import importlib
import io
import pickle
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("serving")


def codec(name: str) -> Any:
    return importlib.import_module(f"sagemaker_inference.{name}")


def npy(array: Any, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("value", "content_type", "body"),
    [
        ([42, 6, 9], "application/json", "[42, 6, 9]"),
        (np.array([[1, 2], [3, 4]]), "application/json", "[[1, 2], [3, 4]]"),
        ({"a": np.float32(0.5)}, "application/json", '{"a": 0.5}'),
        ([42, 6, 9], "text/csv", "42\n6\n9\n"),
        ([[1, 2], [3, 4]], "text/csv; charset=utf-8", "1,2\n3,4\n"),
        ([0.1, 2.5], "text/csv", "0.1\n2.5\n"),
    ],
)
def test_values_are_encoded_as_the_toolkit_did(value: Any, content_type: str, body: str) -> None:
    assert codec("encoder").encode(value, content_type) == body


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("[42, 6, 9]", "application/json", np.array([42, 6, 9])),
        (b"[[1, 2], [3, 4]]", "APPLICATION/JSON; charset=utf-8", np.array([[1, 2], [3, 4]])),
        ("42\n6\n9\n", "text/csv", np.array([42, 6, 9])),
        ("1.5,2.5\n3.5,4.5\n", "text/csv", np.array([[1.5, 2.5], [3.5, 4.5]])),
        ("1.5,2\n", "text/csv", np.array((1.5, 2), dtype=[("f0", "<f8"), ("f1", "<i8")])),
        (npy(np.arange(6).reshape(2, 3)), "application/x-npy", np.arange(6).reshape(2, 3)),
    ],
)
def test_bodies_are_decoded_as_the_toolkit_did(body: Any, content_type: str, expected: Any) -> None:
    decoded = codec("decoder").decode(body, content_type)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == expected.dtype


def test_npy_goes_both_ways() -> None:
    array = np.random.default_rng(0).random((3, 4))
    body = codec("encoder").encode(array, "application/x-npy")
    np.testing.assert_array_equal(codec("decoder").decode(body, "application/x-npy"), array)


def test_npz_is_a_sparse_matrix() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    stream = io.BytesIO()
    sparse.save_npz(stream, sparse.csr_matrix(np.eye(3)))
    np.testing.assert_array_equal(codec("decoder").decode(stream.getvalue(), "application/x-npz").toarray(), np.eye(3))


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("body", [npy(np.array([Bomb()], dtype=object), pickled=True), pickle.dumps(Bomb())])
def test_pickled_objects_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read as application/x-npy") as told:
        codec("decoder").decode(body, "application/x-npy")
    assert getattr(told.value, "status_code", None) == 400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[1,", "application/json"),
        (b"\xff", "application/json"),
        (b"", "application/x-npy"),
        (b"[[1],[1,2]]", "application/json"),
    ],
)
def test_damaged_bodies_are_the_clients_fault(body: bytes, content_type: str) -> None:
    with pytest.raises(codec("errors").UnreadableBodyError):
        codec("decoder").decode(body, content_type)


@pytest.mark.parametrize("content_type", ["image/png", "", None])
@pytest.mark.parametrize(("module", "function"), [("decoder", "decode"), ("encoder", "encode")])
def test_other_types_are_named(module: str, function: str, content_type: str) -> None:
    with pytest.raises(codec("errors").UnsupportedFormatError, match=f"Content type {content_type} is not supported"):
        getattr(codec(module), function)(b"[]", content_type)


def test_what_json_cannot_say_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="type object is not JSON serializable"):
        codec("encoder").encode(object(), "application/json")


def test_errors_keep_what_handlers_read() -> None:
    errors = codec("errors")
    stated = errors.GenericInferenceToolkitError(418)
    assert (stated.status_code, stated.message, stated.phrase) == (418, "Invalid Request", "Invalid Request")
    assert isinstance(stated, errors.BaseInferenceToolkitError)


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def hugging_face() -> Any:
    return importlib.import_module("sagemaker_huggingface_inference_toolkit.decoder_encoder")


def test_tables_become_inputs() -> None:
    decode = hugging_face().decode
    assert decode("inputs\nI love it\nso so\n", "text/csv") == {"inputs": ["I love it", "so so"]}
    asked = decode("question,context\nwho?,me\n", "text/csv")
    assert asked == {"inputs": [{"question": "who?", "context": "me"}]}


def test_table_without_names_is_the_clients_fault() -> None:
    for body in ("a,b\n1,2\n", "", "inputs\n"):
        with pytest.raises(ValueError, match="name the columns"):
            hugging_face().decode(body, "text/csv")


def test_picture_goes_both_ways() -> None:
    from PIL import Image

    body = hugging_face().encode(Image.new("RGB", (2, 3), "red"), "image/png")
    picture = hugging_face().decode(body, "image/png")["inputs"]
    assert (picture.size, picture.getpixel((0, 0))) == ((2, 3), (255, 0, 0))
    with pytest.raises(ValueError, match="cannot be read as image/png"):
        hugging_face().decode(b"no picture", "image/png")


def test_predictions_are_compact_json() -> None:
    value = [{"label": "é", "score": np.float32(0.5), "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}]
    assert hugging_face().encode(value) == '[{"label":"é","score":0.5,"at":"2026-01-02 00:00:00+00:00"}]'
    assert hugging_face().encode([{"label": "a", "score": 1}], "text/csv") == "label,score\r\na,1\r\n"
