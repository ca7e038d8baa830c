"""Files as records and records as bodies, however they are cut, damaged or large."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.artifact.recordio import MAGIC
from mooring.serving.records import (
    UNLIMITED,
    Payload,
    RecordError,
    Split,
    Strategy,
    blocks,
    lines,
    payloads,
    recordio,
)


def frame(content: bytes, flag: int = 0) -> bytes:
    return MAGIC + struct.pack("<I", flag << 29 | len(content)) + content + bytes(-len(content) % 4)


def cut(path: Path, content: bytes, split: Split, strategy: Strategy, most_bytes: int) -> list[Payload]:
    file = path / "input"
    file.write_bytes(content)
    return list(payloads(file, split, strategy, most_bytes))


def test_lines_are_packed_up_to_the_limit_and_numbered(tmp_path: Path) -> None:
    made = cut(tmp_path, b"aa\nbb\nccc\nd", Split.LINE, Strategy.MULTI, 6)
    assert [(str(each), each.body) for each in made] == [
        ("records 1 to 2", b"aa\nbb\n"),
        ("records 3 to 4", b"ccc\nd\n"),
    ]


def test_empty_lines_are_counted_and_not_sent(tmp_path: Path) -> None:
    made = cut(tmp_path, b"\na\n\r\n\n\n\nbb\r\n\nc\n\n", Split.LINE, Strategy.MULTI, 6)
    assert [(str(each), each.body) for each in made] == [
        ("records 1 to 4", b"a\n"),
        ("records 5 to 7", b"bb\r\n"),
        ("records 8 to 10", b"c\n"),
    ]


def test_single_record_has_no_end_of_line(tmp_path: Path) -> None:
    made = cut(tmp_path, b"a\r\nb\n\n", Split.LINE, Strategy.SINGLE, 6)
    assert [(str(each), each.body) for each in made] == [("record 1", b"a"), ("record 2", b"b")]


@pytest.mark.parametrize("strategy", Strategy)
def test_line_over_the_limit_is_told_after_what_came_before_it(tmp_path: Path, strategy: Strategy) -> None:
    (tmp_path / "input").write_bytes(b"a\n" + b"b" * 100 + b"\n")
    made = payloads(tmp_path / "input", Split.LINE, strategy, 10)
    assert next(made).first == 1
    with pytest.raises(RecordError, match="record 2: it has at least 11 bytes, over the limit of 10"):
        next(made)


def test_line_that_never_ends_is_not_read_to_its_end() -> None:
    stream = io.BytesIO(b"x" * 10_000_000)
    with pytest.raises(RecordError):
        list(lines(stream, 100))
    assert stream.tell() <= 101


@pytest.mark.parametrize("split", [Split.LINE, Split.RECORDIO])
def test_empty_file_has_no_records(tmp_path: Path, split: Split) -> None:
    assert cut(tmp_path, b"", split, Strategy.MULTI, 10) == []


def test_file_that_is_one_record_is_sent_from_where_it_lies(tmp_path: Path) -> None:
    (only,) = cut(tmp_path, b"abc", Split.NONE, Strategy.MULTI, 3)
    assert only.body == tmp_path / "input"
    with pytest.raises(RecordError, match="it has 4 bytes, over the limit of 3; raise --max-payload-mb"):
        cut(tmp_path, b"abcd", Split.NONE, Strategy.MULTI, 3)


def test_many_records_without_a_limit_are_the_file(tmp_path: Path) -> None:
    (only,) = cut(tmp_path, b"a\nb\n", Split.LINE, Strategy.MULTI, 0)
    assert only.body == tmp_path / "input"
    assert len(cut(tmp_path, b"a\nb\n", Split.LINE, Strategy.SINGLE, 0)) == 2


def test_frames_of_recordio_go_with_several_records_and_not_with_one(tmp_path: Path) -> None:
    content = frame(b"abcde") + frame(b"") + frame(b"fgh")
    multi = cut(tmp_path, content, Split.RECORDIO, Strategy.MULTI, 24)
    assert [each.body for each in multi] == [frame(b"abcde") + frame(b""), frame(b"fgh")]
    single = cut(tmp_path, content, Split.RECORDIO, Strategy.SINGLE, 24)
    assert [each.body for each in single] == [b"abcde", b"", b"fgh"]


def test_record_that_holds_the_magic_number_is_put_together() -> None:
    stream = frame(b"ab", flag=1) + frame(b"cd", flag=2) + frame(b"ef", flag=3)
    (record,) = recordio(io.BytesIO(stream), UNLIMITED)
    assert (record.content, record.framed) == (MAGIC.join([b"ab", b"cd", b"ef"]), stream)


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (frame(b"ab") + b"abcdefgh", "record 2: it begins with 61626364"),
        (frame(b"ab")[:-1], "record 1: the file ends after 3 of its 4 bytes"),
        (frame(b"ab") + MAGIC, "record 2: the file ends within its head"),
        (MAGIC + struct.pack("<I", 7 << 29), "its flag is 7"),
        (frame(b"ab", flag=2), "begins in the middle"),
        (frame(b"ab", flag=1), "record 1: the file ends within its head"),
        (frame(b"ab", flag=1) + frame(b"cd"), "another record begins before it ends"),
        (frame(b"a" * 200), "over the limit of 100"),
        (frame(b"a" * 60, flag=1) + frame(b"a" * 60, flag=3), "over the limit"),
    ],
)
def test_damaged_recordio_is_told_where(stream: bytes, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        list(recordio(io.BytesIO(stream), 100))


# What an editor would show as a line: it neither has an end in it nor is empty.
LINE = st.binary(min_size=1, max_size=20).filter(lambda line: line == line.strip(b"\r\n") and b"\n" not in line)


@given(contents=st.lists(LINE), most=st.integers(21, 60))
@settings(max_examples=100, deadline=None)
def test_no_line_is_lost_or_sent_twice(contents: list[bytes], most: int) -> None:
    made = list(blocks(io.BytesIO(b"\n".join(contents)), most))
    bodies = [each.body for each in made if isinstance(each.body, bytes)]
    assert b"".join(bodies).split(b"\n")[:-1] == contents
    assert all(len(body) <= most + 1 for body in bodies)  # the last line may be without its end
    assert [record.content for record in lines(io.BytesIO(b"\n".join(contents)), most)] == contents
    numbers = [number for each in made for number in range(each.first, each.last + 1)]
    assert numbers == list(range(1, len(contents) + 1))


@given(contents=st.lists(st.binary(max_size=40)))
@settings(max_examples=100, deadline=None)
def test_any_record_survives_its_frame(contents: list[bytes]) -> None:
    stream = b"".join(map(frame, contents))
    assert [record.content for record in recordio(io.BytesIO(stream), UNLIMITED)] == contents


@given(stream=st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_garbage_is_no_record(stream: bytes) -> None:
    with pytest.raises(RecordError):
        list(recordio(io.BytesIO(stream + b"!"), 1000))
