"""Forms: as browsers and curl send them, and as nobody should."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.handler import codecs
from mooring.handler.errors import BodyDecodeError
from mooring.handler.multipart import MOST_HEADER_BYTES, MOST_PARTS

BOUNDARY = "----b0undary"
TYPE = f'multipart/form-data; boundary="{BOUNDARY}"'


def part(headers: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\n{headers}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def field(name: str, content: bytes = b"") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', content)


def test_fields_are_text_and_files_are_bytes() -> None:
    body = form(
        field("comment", "größe".encode()),
        part(
            'content-disposition: form-data; name="photo"; filename="a;b\\"c.png"\r\nContent-Type: image/png',
            b"\x89\r\n--\0",
        ),
        part('Content-Disposition: form-data; name="json"\r\nContent-Type: application/json', b"[1]"),
        part('Content-Disposition: form-data; name="old"\r\nContent-Type: text/plain; charset=latin-1', b"\xe9"),
        field("empty"),
    )
    assert codecs.decode(body, TYPE) == {
        "comment": "größe",
        "photo": b"\x89\r\n--\0",
        "json": b"[1]",
        "old": "é",
        "empty": "",
    }


def test_what_stands_before_and_after_the_parts_is_passed_over() -> None:
    body = b"for old readers\r\n" + form(field("a", b"1")) + b"end\r\n--" + BOUNDARY.encode() + b"\r\nno part"
    assert codecs.decode(body, TYPE) == {"a": "1"}


def test_form_without_parts_is_empty() -> None:
    assert codecs.decode(form(), TYPE) == {}


@pytest.mark.parametrize(
    ("body", "content_type", "problem"),
    [
        (form(field("a")), "multipart/form-data", "its boundary has to be 1 to 70"),
        (form(field("a")), f"multipart/form-data; boundary={'b' * 71}", "its boundary has to be 1 to 70"),
        (b"", TYPE, "does not end with its boundary"),
        (field("a"), TYPE, "does not end with its boundary"),
        (form(part("Content-Type: text/plain", b"1")), TYPE, "no Content-Disposition"),
        (form(part('Content-Disposition: attachment; name="a"', b"1")), TYPE, "no Content-Disposition"),
        (form(f"--{BOUNDARY}\r\nname: a\r\n".encode()), TYPE, "no end of its headers"),
        (form(part(f"X: {'x' * MOST_HEADER_BYTES}", b"")), TYPE, "no end of its headers in 8192 bytes"),
        (form(field("a", b"\xff")), TYPE, "field 'a'"),
        (form(*[field("a")] * (MOST_PARTS + 1)), TYPE, "more than 100 parts"),
        (b"a=1&" * 101, "application/x-www-form-urlencoded", "fields"),
        (b"\xff=1", "application/x-www-form-urlencoded", "ascii"),
    ],
)
def test_form_that_is_none_is_told_why(body: bytes, content_type: str, problem: str) -> None:
    with pytest.raises(BodyDecodeError, match=problem):
        codecs.decode(body, content_type)


def test_as_many_parts_as_are_allowed_are_read() -> None:
    assert len(codecs.decode(form(*[field(str(number)) for number in range(MOST_PARTS)]), TYPE)) == MOST_PARTS


@pytest.mark.parametrize(
    "piece", [b"\r\n--", b"\r\n--" + BOUNDARY.encode()[:-1], b"\r\n--" + BOUNDARY.encode(), b"-", b"\r\n"]
)
def test_body_full_of_near_boundaries_takes_no_longer(piece: bytes) -> None:
    """CVE-2024-9056: what looked like a boundary cost as much as the whole body."""
    body = piece * (5_000_000 // len(piece))
    started = time.process_time()
    with pytest.raises(BodyDecodeError):
        codecs.decode(body, TYPE)
    assert time.process_time() - started < 1.0


@given(
    pieces=st.lists(
        st.sampled_from([b"--", BOUNDARY.encode(), b"\r\n", b'Content-Disposition: form-data; name="a"', b"\xff", b";"])
    )
)
@settings(max_examples=200, deadline=None)
def test_any_body_is_a_form_or_a_callers_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(BodyDecodeError):
        codecs.decode(b"".join(pieces), TYPE)
