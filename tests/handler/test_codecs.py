"""Bodies to arrays and back; the vectors of the earlier inference toolkit, and whatever a stranger may send."""

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.contract.errors import CallerError
from mooring.handler import codecs
from mooring.handler.errors import BodyDecodeError, UnsupportedAcceptError, UnsupportedContentTypeError
from mooring.handler.media_types import OPEN_INFERENCE


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
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"open({str(self.file)!r}, 'w').close()",)


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/x-npz"])
def test_pickle_is_never_opened(content_type: str, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "unpickled")
    objects = np.array([bomb], dtype=object)
    body = npy(objects, allow_pickle=True)
    if content_type == "application/x-npz":
        buffer = io.BytesIO()
        np.savez(buffer, objects)
        body = buffer.getvalue()
    for content in (body, pickle.dumps(bomb)):
        with pytest.raises(BodyDecodeError):
            codecs.decode(content, content_type)
    assert not bomb.file.exists()
    pickle.loads(pickle.dumps(bomb))
    assert bomb.file.exists()


@given(body=st.binary(max_size=200), content_type=st.sampled_from(list(codecs.DECODERS)))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_callers_error_or_a_value(body: bytes, content_type: str) -> None:
    with contextlib.suppress(CallerError):
        codecs.decode(body, content_type)


def test_unknown_type_lists_the_known() -> None:
    with pytest.raises(UnsupportedContentTypeError, match="text/xml is not supported by this framework") as refused:
        codecs.decode(b"<a/>", "text/xml")
    assert "text/csv" in str(refused.value)
    assert OPEN_INFERENCE not in str(refused.value)


def test_charset_is_respected() -> None:
    assert codecs.decode('["é"]'.encode("latin-1"), "application/json; charset=latin-1") == ["é"]


def test_not_a_number_becomes_null_in_json() -> None:
    assert codecs.encode([float("nan"), float("inf")], "application/json")[0] == b"[null,null]"


def test_value_that_does_not_fit_what_is_accepted_says_what_would() -> None:
    with pytest.raises(UnsupportedAcceptError, match="application/json"):
        codecs.encode(np.zeros((2, 2, 2)), "text/csv")


@pytest.mark.parametrize("name", ["application/x-ndjson", "application/x-jsonlines", "application/jsonlines"])
def test_json_lines_go_by_several_names_and_are_answered_under_the_one_asked_for(name: str) -> None:
    assert codecs.decode(b'{"a": 1}\r\n\n[2]\n', name) == [{"a": 1}, [2]]
    assert codecs.encode([{"a": 1}, [2]], name) == (b'{"a":1}\n[2]\n', name)


def test_line_of_json_may_hold_what_ends_lines_elsewhere() -> None:
    assert codecs.decode('"a\u2028b\x85c"\n'.encode(), "application/jsonlines") == ["a\u2028b\x85c"]


def test_json_lines_of_unequal_lists_are_written() -> None:
    assert codecs.encode([[1], [2, 3]], "application/jsonlines")[0] == b"[1]\n[2,3]\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1,2\n3,4\n", np.array([[1, 2], [3, 4]])),
        (b"1,2.5\r\n3,4\r\n", np.array([[1, 2.5], [3, 4]])),
        (b"a,b\n1,2\n", np.array([[1, 2]])),
        (b'"a","b"\n"1",2.5\n', np.array([[1, 2.5]])),
        (b"\xef\xbb\xbf1,2\n", np.array([[1, 2]])),
        (b"1,,3\n", np.array([[1, np.nan, 3]])),
        (b"18446744073709551616\n", np.array([[2.0**64]])),
        (b"nan,inf\n", np.array([[np.nan, np.inf]])),
        (b"1,2\n \n3,4\n", np.array([[1.0, 2.0], [3.0, 4.0]])),
        (b"1, 2\n", np.array([[1, 2]])),
        (b"5\n", np.array([[5]])),
        (b",,\n1,2,3\n", np.array([[np.nan] * 3, [1, 2, 3]])),
        (b" ,\r\n1,2\r\n", np.array([[np.nan] * 2, [1, 2]])),
        (b'"",""\n1,2\n', np.array([[np.nan] * 2, [1, 2]])),
        (b"nan,nan\n1,2\n", np.array([[np.nan] * 2, [1, 2]])),
        (b"\n5\n6\n", np.array([[5], [6]])),
        (b"none of,n\n1,2\n", np.array([[1, 2]])),
        (b",a,NA\n0,1,2\n", np.array([[0, 1, 2]])),
        (b"", np.empty((0, 0))),
    ],
)
def test_table_of_numbers_is_read_with_or_without_header(body: bytes, expected: Any) -> None:
    decoded = codecs.decode(body, "text/csv; charset=utf-8")
    assert decoded.dtype == expected.dtype
    assert np.array_equal(decoded, expected, equal_nan=True)


def test_table_of_text_stays_text() -> None:
    assert codecs.decode(b'good,"bad, very"\n', "text/csv").tolist() == [["good", "bad, very"]]


def test_number_that_is_none_is_told_by_its_line_after_the_header() -> None:
    with pytest.raises(BodyDecodeError, match="line 3: 'x' is no number"):
        codecs.decode(b"a,b\n1,2\n3,x\n", "text/csv")


@pytest.mark.parametrize("marker", ["NA", "n/a", "#N/A", "null", "None", "?", "-", " NA", '"NA"'])
@pytest.mark.parametrize("first", ["{0},{0}", "{0},", "{0},5"])
def test_first_line_of_missing_values_is_no_header(marker: str, first: str) -> None:
    """Left out without a word, it would give each row the answer of the one behind it."""
    with pytest.raises(BodyDecodeError, match=r"line 1: .* is no number"):
        codecs.decode(f"{first.format(marker)}\n1,2\n".encode(), "text/csv")


def test_header_has_as_many_columns_as_its_table() -> None:
    with pytest.raises(BodyDecodeError, match="line 2 has 2 columns, the first has 3"):
        codecs.decode(b"a,b,c\n1,2\n", "text/csv")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([[1.1, 2.0]], np.float32), b"1.1,2.0\n"),
        (np.array([[1.1, np.nan]], np.float32), b"1.1,nan\n"),
        (np.array([[True], [False]]), b"True\nFalse\n"),
        (np.arange(4, dtype=">i2").reshape(2, 2).T, b"0,2\n1,3\n"),
        (np.zeros((0, 3)), b""),
        ([], b""),
        (7, b"7\n"),
    ],
)
def test_numbers_are_written_as_short_as_they_are(value: Any, expected: bytes) -> None:
    assert codecs.encode(value, "text/csv")[0] == expected


def test_text_with_commas_is_quoted_in_csv() -> None:
    assert codecs.encode([["a,b", 'c"d'], ["e", "f"]], "text/csv")[0] == b'"a,b","c""d"\ne,f\n'


@pytest.mark.parametrize("value", [{"a": 1}, [None], np.zeros((2, 2, 2)), [[1], [2, 3]]])
def test_what_is_no_table_is_no_csv(value: Any) -> None:
    with pytest.raises(UnsupportedAcceptError, match="application/json"):
        codecs.encode(value, "text/csv")
    assert codecs.encode(value, "text/csv, application/json;q=0.5")[1] == "application/json"


def test_text_bytes_and_forms_are_read() -> None:
    assert codecs.decode("é".encode("latin-1"), "text/plain; charset=iso-8859-1") == "é"
    assert codecs.decode(b"\0\xff", "application/octet-stream") == b"\0\xff"
    assert codecs.decode(b"a=1&b=x+y", "application/x-www-form-urlencoded") == {"a": "1", "b": "x y"}


def test_text_and_bytes_are_written() -> None:
    assert codecs.encode("é", "text/plain") == ("é".encode(), "text/plain")
    assert codecs.encode(np.float32(1.5), "text/plain")[0] == b"1.5"
    assert codecs.encode(b"\0", "application/octet-stream") == (b"\0", "application/octet-stream")


@pytest.mark.parametrize(
    "charset", ["idna", "punycode", "utf-7", "zip", "rot13", "undefined", "unicode_escape", "x" * 999]
)
def test_encoding_that_is_no_character_set_is_the_callers_error(charset: str) -> None:
    with pytest.raises(BodyDecodeError):
        codecs.decode(b"abc", f"text/plain; charset={charset}")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(5),
        np.zeros((0, 3)),
        np.array(["a", "bc"]),
        np.array(["2026-01-01"], dtype="M8[D]"),
    ],
)
def test_npy_of_any_kind_survives_and_can_be_written_to(array: Any) -> None:
    for body in (npy(array), codecs.encode(array, "application/x-npy")[0]):
        decoded = codecs.decode(body, "application/x-npy")
        assert decoded.dtype == array.dtype
        assert np.array_equal(decoded, array)
        assert decoded.flags.writeable
        assert np.array_equal(np.load(io.BytesIO(body)), array)


@pytest.mark.parametrize(
    "head",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}",
        "(" * 5000,
        "{'descr': ",
        "",
    ],
)
def test_npy_header_that_lies_is_the_callers_error(head: str) -> None:
    body = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    with pytest.raises(BodyDecodeError):
        codecs.decode(body, "application/x-npy")


def test_npz_that_claims_more_than_it_is_worth_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy(np.ones(3)))
        archive.filelist[0].file_size = 2 << 30  # as a bomb would say truthfully
    with pytest.raises(BodyDecodeError, match="more than 1,073,741,824 bytes"):
        codecs.decode(buffer.getvalue(), "application/x-npz")


def test_sparse_matrix_is_its_parts() -> None:
    buffer = io.BytesIO()
    parts = {"data": np.ones(2), "indices": np.array([0, 1]), "format": np.array(b"csr")}
    np.savez_compressed(buffer, allow_pickle=False, **parts)
    decoded = codecs.decode(buffer.getvalue(), "application/x-npz")
    assert {name: array.tolist() for name, array in decoded.items()} == {
        name: array.tolist() for name, array in parts.items()
    }


def test_npz_may_call_its_arrays_anything() -> None:
    arrays = {"file": np.ones(1), "allow_pickle": np.zeros(2)}
    body, _ = codecs.encode(arrays, "application/x-npz")
    assert set(codecs.decode(body, "application/x-npz")) == set(arrays)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values=st.lists(JSON_VALUES, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_json_survives_there_and_back(values: list[Any]) -> None:
    for content_type in ("application/json", "application/jsonlines"):
        body, written = codecs.encode(values, content_type)
        assert codecs.decode(body, written) == values


@given(
    table=st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=6),
    content_type=st.sampled_from(["text/csv", "application/x-npy"]),
)
@settings(max_examples=100, deadline=None)
def test_any_table_of_floats_survives_there_and_back(table: list[list[float]], content_type: str) -> None:
    body, written = codecs.encode(np.array(table), content_type)
    assert np.array_equal(codecs.decode(body, written), np.array(table), equal_nan=True)


@given(body=st.binary(max_size=120), content_type=st.sampled_from(["application/x-npy", "application/x-npz"]))
@settings(max_examples=200, deadline=None)
def test_damaged_file_of_numpy_is_a_callers_error_or_a_value(body: bytes, content_type: str) -> None:
    whole = codecs.encode(np.arange(3), content_type)[0]
    for place in range(0, len(whole), 7):
        with contextlib.suppress(CallerError):
            codecs.decode(whole[:place] + body + whole[place + len(body) :], content_type)
