"""Bodies to arrays and back; the vectors of the earlier inference toolkit, and whatever a stranger may send."""

import contextlib
import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.contract.errors import CallerError
from mooring.handler import codecs
from mooring.handler.errors import BodyDecodeError, UnsupportedAcceptError, UnsupportedContentTypeError
from mooring.handler.media_types import negotiate, parse


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "application/x-npy", "application/jsonlines"])
@pytest.mark.parametrize("value", [[[1.5, 2.0], [3.0, 4.25]], [[0.1]]])
def test_table_survives_there_and_back(content_type: str, value: list[list[float]]) -> None:
    body, written = codecs.encode(np.array(value), content_type)
    assert written == content_type
    assert np.array_equal(np.asarray(codecs.decode(body, content_type)), np.array(value))


def test_toolkits_vectors_hold() -> None:
    assert codecs.encode([42, 6, 9], "text/csv")[0] == b"42\n6\n9\n"
    assert codecs.decode(codecs.encode([42, 6, 9], "application/json")[0], "application/json") == [42, 6, 9]


@pytest.mark.parametrize(
    ("body", "content_type", "problem"),
    [
        (b"[1,", "application/json", "line 1"),
        (b"1,2\n3\n", "text/csv", "line 2 has 1 columns, the first has 2"),
        (b"1,x\n", "text/csv", "line 1"),
        (b"\xff", "text/csv", "utf-8"),
        (b"1", "text/csv; charset=no-such", "no-such"),
        (b"{}\n{", "application/jsonlines", "line 2"),
        (b"no npy", "application/x-npy", "does not begin as an .npy file"),
        (npy(np.zeros(9))[:-1], "application/x-npy", "expected 72 bytes, got 71"),
        (b"no npz", "application/x-npz", "does not begin as an .npz file"),
        (b"PK\3\4", "application/x-npz", "zip"),
    ],
)
def test_body_that_is_not_its_type_is_told_where(body: bytes, content_type: str, problem: str) -> None:
    with pytest.raises(BodyDecodeError, match=problem):
        codecs.decode(body, content_type)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/x-npz"])
def test_pickle_is_never_opened(content_type: str) -> None:
    objects = np.array([Bomb()], dtype=object)
    body = npy(objects, allow_pickle=True)
    if content_type == "application/x-npz":
        buffer = io.BytesIO()
        np.savez(buffer, objects)
        body = buffer.getvalue()
    for content in (body, pickle.dumps(Bomb())):
        with pytest.raises(BodyDecodeError):
            codecs.decode(content, content_type)


@given(body=st.binary(max_size=200), content_type=st.sampled_from(list(codecs.DECODERS)))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_callers_error_or_a_value(body: bytes, content_type: str) -> None:
    with contextlib.suppress(CallerError):
        codecs.decode(body, content_type)


def test_unknown_type_lists_the_known() -> None:
    with pytest.raises(UnsupportedContentTypeError, match="Content type text/xml is not supported by this framework"):
        codecs.decode(b"<a/>", "text/xml")


def test_charset_is_respected() -> None:
    assert codecs.decode('["é"]'.encode("latin-1"), "application/json; charset=latin-1") == ["é"]


def test_not_a_number_becomes_null_in_json() -> None:
    assert codecs.encode([float("nan"), float("inf")], "application/json")[0] == b"[null,null]"


def test_value_that_does_not_fit_what_is_accepted_says_what_would() -> None:
    with pytest.raises(UnsupportedAcceptError, match="application/json"):
        codecs.encode(np.zeros((2, 2, 2)), "text/csv")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("application/json;q=0.1, text/csv;q=0.9", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("image/png", None),
        ("text/csv;q=oops", "text/csv"),
    ],
)
def test_accept_header_chooses_among_what_is_offered(accept: str, expected: str | None) -> None:
    assert negotiate(accept, ("application/json", "text/csv")) == expected


def test_media_type_has_no_case() -> None:
    parsed = parse('Text/CSV; Charset="UTF-8"')
    assert (parsed.name, parsed.charset) == ("text/csv", "UTF-8")
