"""RecordIO, dmlc's framing of records: MXNet's `.rec` files, and what the platform puts around records in a pipe.

A frame is a magic number, three bits of flag and 29 of length, the content, and zeros up to a multiple of four. A
record that holds the magic number at such a multiple is cut there, into frames of its own. Streams are read from front
to back, so they may be pipes.
"""

import logging
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mooring.contract.errors import UserCodeError

logger = logging.getLogger(__name__)

MAGIC = struct.pack("<I", 0xCED7230A)
HEAD = struct.Struct("<4sI")
LENGTH_BITS = 29
MOST_FRAME_BYTES = (1 << LENGTH_BITS) - 1
ALIGNMENT = 4
WHOLE, START, MIDDLE, END = range(4)
INDEX_SUFFIX = ".idx"


class DamagedRecordError(UserCodeError):
    """Bytes that are no RecordIO. `record` counts from 1 from where reading began, `offset` is where its frame is."""

    def __init__(self, stream: str, record: int, offset: int, problem: str) -> None:
        self.stream = stream
        self.record = record
        self.offset = offset
        self.problem = problem
        super().__init__(f"{stream}, record {record} at byte {offset:,}: {problem}.")


class CutRecordError(DamagedRecordError):
    """A stream ends within a record."""


class LargeRecordError(DamagedRecordError):
    """A record is larger than its reader allows."""

    def __init__(self, stream: str, record: int, offset: int, size: int, most_bytes: int) -> None:
        self.size = size
        self.most_bytes = most_bytes
        super().__init__(stream, record, offset, f"it has {size:,} bytes, over the limit of {most_bytes:,}")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: a record, or a part of one."""

    flag: int
    content: bytes

    @property
    def framed(self) -> bytes:
        """The frame as it is in a stream."""
        size = len(self.content)
        return HEAD.pack(MAGIC, self.flag << LENGTH_BITS | size) + self.content + bytes(-size % ALIGNMENT)


def read_records(stream: BinaryIO, name: str | None = None, *, offset: int = 0) -> Iterator[bytes]:
    """Yield the content of every record from where a stream stands to its end.

    The stream is one whose `read` gives as much as is asked for, as files opened with a buffer do. Errors call it
    `name`, and count bytes from `offset`. Raises `DamagedRecordError`, `CutRecordError`.

    >>> import io
    >>> list(read_records(io.BytesIO(frame(b"abcde") + frame(b""))))
    [b'abcde', b'']
    """
    for frames in read_frames(stream, name, offset=offset):
        yield frames[0].content if len(frames) == 1 else MAGIC.join(part.content for part in frames)


def read_frames(
    stream: BinaryIO, name: str | None = None, *, offset: int = 0, most_bytes: int | None = None
) -> Iterator[tuple[Frame, ...]]:
    """Yield the frames of every record, as `read_records` reads them: one, or several where it was cut.

    Raises `LargeRecordError`, too, for a record whose frames are larger than `most_bytes`, before it is read.
    """
    name = name or str(getattr(stream, "name", "the stream"))
    number = 0
    while head := stream.read(HEAD.size):
        number += 1
        frames: list[Frame] = []
        size = 0
        while True:
            place = (name, number, offset + size)
            flag, length = _take_apart(head, place, is_first=not frames)
            size += HEAD.size + _padded(length)
            if most_bytes is not None and size > most_bytes:
                raise LargeRecordError(name, number, offset, size, most_bytes)
            frames.append(Frame(flag, _read_content(stream, length, place)))
            if flag in (WHOLE, END):
                break
            head = stream.read(HEAD.size)
        offset += size
        yield tuple(frames)


def _read_content(stream: BinaryIO, length: int, place: tuple[str, int, int]) -> bytes:
    """Read a frame's content, and past the zeros behind it. Raises `CutRecordError`."""
    content = stream.read(length)
    padding = _padded(length) - length
    got = len(content) + (len(stream.read(padding)) if padding else 0)
    if got < length + padding:
        raise CutRecordError(*place, f"the file ends after {got:,} of its {length + padding:,} bytes")
    return content


def _padded(length: int) -> int:
    return length + -length % ALIGNMENT


def _take_apart(head: bytes, place: tuple[str, int, int], *, is_first: bool) -> tuple[int, int]:
    """Return flag and length of a frame's head; `place` is what errors name."""
    if len(head) < HEAD.size:
        raise CutRecordError(*place, "the file ends within its head")
    magic, word = HEAD.unpack(head)
    if magic != MAGIC:
        raise DamagedRecordError(*place, f"it begins with {magic.hex()}, not with RecordIO's magic number")
    flag, length = word >> LENGTH_BITS, word & MOST_FRAME_BYTES
    if flag > END:
        raise DamagedRecordError(*place, f"its flag is {flag}, which RecordIO does not know")
    if is_first and flag in (MIDDLE, END):
        raise DamagedRecordError(*place, "it begins in the middle of a record")
    if not is_first and flag in (WHOLE, START):
        raise DamagedRecordError(*place, "another record begins before it ends")
    return flag, length


def frame(payload: bytes) -> bytes:
    """Return a record as it is in a stream, cut where it holds the magic number.

    >>> frame(b"abcde").hex(" ", 4)
    '0a23d7ce 05000000 61626364 65000000'
    """
    parts = _parts(payload)
    flags = [WHOLE] if len(parts) == 1 else [START, *[MIDDLE] * (len(parts) - 2), END]
    return b"".join(Frame(flag, part).framed for flag, part in zip(flags, parts, strict=True))


def write_record(stream: BinaryIO, payload: bytes) -> int:
    """Write a record, and return how many bytes its frames take. Raises ValueError over 512 MiB a frame."""
    framed = frame(payload)
    stream.write(framed)
    return len(framed)


def _parts(payload: bytes) -> list[bytes]:
    """Return what lies between the magic numbers that begin at a multiple of four, counted from the record's start."""
    cuts = [match.start() for match in re.finditer(re.escape(MAGIC), payload) if match.start() % ALIGNMENT == 0]
    begins = [0, *(cut + len(MAGIC) for cut in cuts)]
    parts = [payload[begin:end] for begin, end in zip(begins, [*cuts, len(payload)], strict=True)]
    if any(len(part) > MOST_FRAME_BYTES for part in parts):
        raise ValueError(f"A record of {len(payload):,} bytes is too large for RecordIO; at most {MOST_FRAME_BYTES:,}.")
    return parts


def record_offsets(path: Path, on_read: Callable[[int], None] | None = None) -> list[int]:
    """Return where each record of a `.rec` file begins, in the order of the file.

    Taken from the `.idx` beside it, where that fits the file; otherwise heads are read and contents skipped. `on_read`
    is told after each record how far that has come. Raises `DamagedRecordError`.

        offsets = record_offsets(path)
        with path.open("rb") as stream:
            stream.seek(offsets[17])
            content = next(read_records(stream))
    """
    index = path.with_suffix(INDEX_SUFFIX)
    if index.is_file():
        offsets = _indexed(index)
        if offsets is not None and _fits(offsets, path):
            return offsets
        logger.warning("%s does not fit %s; the records are counted instead.", index, path)
    return list(_scanned(path, on_read))


def _indexed(index: Path) -> list[int] | None:
    """Return the offsets of an index, whose lines are a key and an offset; None if it is none."""
    try:
        lines = index.read_text(encoding="ascii").splitlines()
        return sorted(int(line.split("\t")[1]) for line in lines if line.strip())
    except (ValueError, IndexError):
        return None


def _fits(offsets: list[int], path: Path) -> bool:
    """Whether the first record begins where the file does, the last ends there, too, and none comes twice."""
    size = path.stat().st_size
    if not offsets or offsets[0] != 0 or len(set(offsets)) != len(offsets):
        return not offsets and not size
    try:
        with path.open("rb") as stream:
            stream.seek(offsets[-1])
            return len(list(islice(read_records(stream), 2))) == 1
    except DamagedRecordError:
        return False


def _scanned(path: Path, on_read: Callable[[int], None] | None) -> Iterator[int]:
    size = path.stat().st_size
    offset = number = 0
    is_inside = False
    with path.open("rb") as stream:
        while head := stream.read(HEAD.size):
            number += not is_inside
            place = (str(path), number, offset)
            flag, length = _take_apart(head, place, is_first=not is_inside)
            end = offset + HEAD.size + _padded(length)
            if end > size:
                raise CutRecordError(*place, f"the file ends {end - size:,} bytes before it does")
            if not is_inside:
                yield offset
            is_inside = flag in (START, MIDDLE)
            offset = stream.seek(end)
            if on_read is not None:
                on_read(offset)
    if is_inside:
        raise CutRecordError(str(path), number, offset, "the file ends before it does")
