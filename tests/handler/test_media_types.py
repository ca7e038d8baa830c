"""What a header says of a body, however it is written, and what of ours a client likes best."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.handler.media_types import negotiate, parse, spelling


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ('Text/CSV; Charset="UTF-8"', "text/csv", {"charset": "UTF-8"}),
        ('multipart/form-data; boundary="a;b=\\"c\\""', "multipart/form-data", {"boundary": 'a;b="c"'}),
        ("a/b;c=d ;e = f; ; g", "a/b", {"c": "d", "e": "f"}),
        ("application/x-ndjson", "application/jsonlines", {}),
        ("", "", {}),
    ],
)
def test_media_type_is_read_whatever_its_case_and_quotes(text: str, name: str, parameters: dict[str, str]) -> None:
    parsed = parse(text)
    assert (parsed.name, parsed.parameters) == (name, parameters)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("text/*", "text/csv"),
        ("text/html, image/gif, *; q=.2, */*; q=.2", "application/json"),
        ("application/json;q=0.1, text/csv;q=0.9", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/csv;q=0, text/*", None),
        ("text/*;q=0.9, text/csv;q=0.1, application/json;q=0.5", "application/json"),
        ("text/csv, application/json", "text/csv"),
        ("application/json, text/csv", "application/json"),
        ("text/csv, */*", "text/csv"),
        ("image/png", None),
        ("text/csv;q=oops", "text/csv"),
        ("text/csv;q=nan, application/json;q=0.5", "text/csv"),
        ("nonsense", "application/json"),
        (", ,;q=1", "application/json"),
        ('text/html;x="a,application/json", text/csv', "text/csv"),
    ],
)
def test_accept_header_chooses_among_what_is_offered(accept: str, expected: str | None) -> None:
    assert negotiate(accept, ("application/json", "text/csv")) == expected


def test_synonym_is_answered_as_it_was_asked() -> None:
    assert spelling("text/csv, application/X-NDJSON;q=1", "application/jsonlines") == "application/x-ndjson"
    assert spelling("*/*", "application/jsonlines") == "application/jsonlines"


@given(st.text(max_size=200))
def test_any_header_can_be_read(text: str) -> None:
    parse(text)
    assert negotiate(text, ("application/json", "text/csv")) in ("application/json", "text/csv", None)


@pytest.mark.parametrize("piece", [';a="', '"\\', ";", ",", "a/b,", ";q=" + " " * 50, '";a="b;'])
def test_header_made_to_be_slow_is_not(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    started = time.process_time()
    parse("text/csv" + text)
    negotiate("text/csv," + text, ("application/json", "text/csv"))
    assert time.process_time() - started < 0.5
