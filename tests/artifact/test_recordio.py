"""Records survive their frames, however they are cut; what is damaged is told by stream, record and byte."""

import io
import logging
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.artifact.recordio import (
    MAGIC,
    CutRecordError,
    DamagedRecordError,
    LargeRecordError,
    frame,
    read_frames,
    read_records,
    record_offsets,
    write_record,
)


def part(content: bytes, flag: int) -> bytes:
    return MAGIC + struct.pack("<I", flag << 29 | len(content)) + content + bytes(-len(content) % 4)


def write(path: Path, *records: bytes) -> list[int]:
    """Write a .rec file, and return where its records begin."""
    with path.open("wb") as stream:
        return [(stream.tell(), write_record(stream, record))[0] for record in records]


# Contents that the magic number cuts anywhere, at multiples of four and beside them.
CONTENT = st.lists(st.sampled_from([MAGIC, b"a", b"bcd", b"efgh", MAGIC[:2], b"\0" * 7]), max_size=8).map(b"".join)


@given(contents=st.lists(CONTENT | st.binary(max_size=40)))
@settings(max_examples=200, deadline=None)
def test_any_record_survives_its_frame(contents: list[bytes]) -> None:
    stream = io.BytesIO()
    sizes = [write_record(stream, content) for content in contents]
    assert sum(sizes) == len(stream.getvalue())
    assert len(stream.getvalue()) % 4 == 0
    stream.seek(0)
    assert list(read_records(stream)) == contents


def test_record_is_cut_where_the_magic_number_is_at_a_multiple_of_four() -> None:
    assert frame(b"abcd" + MAGIC + b"efghij" + MAGIC) == part(b"abcd", 1) + part(b"efghij" + MAGIC, 3)
    assert frame(MAGIC) == part(b"", 1) + part(b"", 3)
    assert frame(MAGIC + MAGIC + b"x") == part(b"", 1) + part(b"", 2) + part(b"x", 3)


def test_magic_number_elsewhere_does_not_confuse_a_reader_that_knows_the_length() -> None:
    assert frame(b"a" + MAGIC) == part(b"a" + MAGIC, 0)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (b"abcdefgh", DamagedRecordError, "data, record 2 at byte 1,012: it begins with 61626364, not with"),
        (part(b"ab", 7), DamagedRecordError, "record 2 at byte 1,012: its flag is 7"),
        (part(b"ab", 2), DamagedRecordError, "record 2 at byte 1,012: it begins in the middle of a record"),
        (part(b"ab", 1) + part(b"cd", 0), DamagedRecordError, "at byte 1,024: another record begins before it ends"),
        (part(b"ab", 0)[:-1], CutRecordError, "at byte 1,012: the file ends after 3 of its 4 bytes"),
        (part(b"ab", 0)[:9], CutRecordError, "the file ends after 1 of its 4 bytes"),
        (MAGIC, CutRecordError, "the file ends within its head"),
        (part(b"ab", 1), CutRecordError, "record 2 at byte 1,024: the file ends within its head"),
    ],
)
def test_damage_is_told_by_stream_record_and_byte(damage: bytes, kind: type[Exception], message: str) -> None:
    records = read_records(io.BytesIO(frame(b"good") + damage), "data", offset=1000)
    assert next(records) == b"good"
    with pytest.raises(kind, match=message) as caught:
        next(records)
    assert type(caught.value) is kind


def test_file_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "some.rec").write_bytes(b"garbage!")
    with (tmp_path / "some.rec").open("rb") as stream, pytest.raises(DamagedRecordError, match=r"some\.rec, record 1"):
        next(read_records(stream))


def test_record_over_the_limit_is_not_read() -> None:
    stream = io.BytesIO(part(b"a" * 60, 1) + part(b"a" * 60, 3))
    with pytest.raises(LargeRecordError, match="it has 136 bytes, over the limit of 100"):
        next(read_frames(stream, most_bytes=100))
    assert stream.tell() == 76


@given(stream=st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_garbage_is_no_record(stream: bytes) -> None:
    with pytest.raises(DamagedRecordError):
        list(read_records(io.BytesIO(stream + b"!")))


RECORDS = (b"first", MAGIC, b"", b"x" * 100_000, b"last" + MAGIC + b"!")


def test_offsets_are_found_without_an_index_and_told_on_the_way(tmp_path: Path) -> None:
    offsets = write(tmp_path / "a.rec", *RECORDS)
    told: list[int] = []
    assert record_offsets(tmp_path / "a.rec", told.append) == offsets
    assert told[-1] == (tmp_path / "a.rec").stat().st_size
    assert told == sorted(told)


def test_record_is_read_at_its_offset(tmp_path: Path) -> None:
    write(tmp_path / "a.rec", *RECORDS)
    with (tmp_path / "a.rec").open("rb") as stream:
        for offset, record in zip(record_offsets(tmp_path / "a.rec"), RECORDS, strict=True):
            stream.seek(offset)
            assert next(read_records(stream)) == record


def test_index_beside_the_file_is_used(tmp_path: Path) -> None:
    offsets = write(tmp_path / "a.rec", *RECORDS)
    # As tools leave it that shuffle: keys in any order, fields parted by a tab.
    lines = [f"{key}\t{offset}\n" for key, offset in enumerate(offsets)]
    (tmp_path / "a.idx").write_text("".join(reversed(lines)), encoding="ascii")
    told: list[int] = []
    assert record_offsets(tmp_path / "a.rec", told.append) == offsets
    assert not told


@pytest.mark.parametrize(
    "index", ["0\t0\n", "0\t4\n", "", "0\t0\n1\t0\n", "0\t0\n1\t999999999\n", "no index", "0\tx\n", "0\t-8\n"]
)
def test_index_that_does_not_fit_is_left_aside_with_a_warning(
    tmp_path: Path, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    offsets = write(tmp_path / "a.rec", b"one", b"two")
    (tmp_path / "a.idx").write_text(index, encoding="ascii")
    with caplog.at_level(logging.WARNING):
        assert record_offsets(tmp_path / "a.rec") == offsets
    assert "a.idx does not fit" in caplog.text


def test_file_without_records_has_no_offsets(tmp_path: Path) -> None:
    (tmp_path / "a.rec").touch()
    assert record_offsets(tmp_path / "a.rec") == []
    (tmp_path / "a.idx").touch()
    assert record_offsets(tmp_path / "a.rec") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame(b"whole") + frame(b"cut")[:-1], "record 2 at byte 16: the file ends 1 bytes before it does"),
        (frame(b"whole") + part(b"ab", 1), "record 2 at byte 28: the file ends before it does"),
        (frame(b"whole") + b"garbage!", "record 2 at byte 16: it begins with"),
    ],
)
def test_damage_is_found_by_the_scan(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.rec").write_bytes(content)
    with pytest.raises(DamagedRecordError, match=message):
        record_offsets(tmp_path / "a.rec")
