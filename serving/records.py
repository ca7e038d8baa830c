"""Input files of a batch job as records, and records as bodies of requests. Files are streamed, never held whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from mooring.artifact.recordio import MAGIC, DamagedRecordError, LargeRecordError, read_frames
from mooring.contract.errors import CallerError

# A record of a file without ends of lines is told to be one before all of it is read.
UNLIMITED = -1


class Split(Enum):
    """What ends a record of an input file."""

    NONE = "none"  # the file is one record
    LINE = "line"
    RECORDIO = "recordio"


class Strategy(Enum):
    """How records are sent."""

    MULTI = "multi"  # as many in one request as fit
    SINGLE = "single"


class RecordError(CallerError):
    """An input file cannot be taken apart."""

    def __init__(self, record: int, problem: str) -> None:
        self.record = record
        self.problem = problem
        super().__init__(f"record {record}: {problem}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record. Its frame is what it looks like among others: with its end of line, or its length and padding."""

    number: int  # from 1
    content: bytes
    framed: bytes


@dataclass(frozen=True, slots=True)
class Payload:
    """The body of one request, with the records it is made of: bytes, or a file that is sent as it is."""

    first: int
    last: int
    body: bytes | Path
    input_bytes: int  # how much of the input file it takes

    def __str__(self) -> str:
        return f"record {self.first}" if self.first == self.last else f"records {self.first} to {self.last}"


def payloads(file: Path, split: Split, strategy: Strategy, most_bytes: int) -> Iterator[Payload]:
    """Yield the requests that a file makes, in order, each of at most so many bytes; 0 is without a limit.

    Raises `RecordError` for a record that is too large or damaged, after the payloads before it.
    """
    size = file.stat().st_size
    is_whole = split is Split.NONE or (strategy is Strategy.MULTI and not most_bytes)
    if is_whole and (size or split is Split.NONE):
        if most_bytes and size > most_bytes:
            raise RecordError(1, too_large(size, most_bytes))
        yield Payload(1, 1, file, size)
    elif size:
        with file.open("rb") as stream:
            if split is Split.LINE and strategy is Strategy.MULTI:
                yield from blocks(stream, most_bytes)
            else:
                read = lines if split is Split.LINE else recordio
                yield from pack(read(stream, most_bytes or UNLIMITED), strategy, most_bytes)


def pack(records: Iterable[Record], strategy: Strategy, most_bytes: int) -> Iterator[Payload]:
    """Yield records as bodies: each by itself without its frame, or as many in their frames as fit."""
    if strategy is Strategy.SINGLE:
        for record in records:
            yield Payload(record.number, record.number, record.content, len(record.framed))
        return
    batch: list[Record] = []
    size = 0
    try:
        for record in records:
            if batch and size + len(record.framed) > most_bytes:
                yield _joined(batch, size)
                batch, size = [], 0
            batch.append(record)
            size += len(record.framed)
    except RecordError:
        if batch:
            yield _joined(batch, size)
        raise
    if batch:
        yield _joined(batch, size)


def _joined(batch: list[Record], size: int) -> Payload:
    return Payload(batch[0].number, batch[-1].number, b"".join(record.framed for record in batch), size)


def lines(stream: BinaryIO, most_bytes: int) -> Iterator[Record]:
    """Yield the lines that are not empty, numbered as in an editor. Raises `RecordError` for one that is too large."""
    number = 0
    # One byte more than may be sent tells that a line is longer, without reading the rest of it.
    while line := stream.readline(UNLIMITED if most_bytes == UNLIMITED else most_bytes + 1):
        number += 1
        framed = line if line.endswith(b"\n") else line + b"\n"
        if most_bytes != UNLIMITED and len(line) > most_bytes:
            raise RecordError(number, too_large(len(line), most_bytes, "at least "))
        content = line.rstrip(b"\r\n")
        if content:
            yield Record(number, content, framed)


def blocks(stream: BinaryIO, most_bytes: int) -> Iterator[Payload]:
    """Yield as many whole lines at once as fit. Raises `RecordError` for a line that is too large.

    Cut as blocks, since a line at a time would take longer than many models do.
    """
    first, rest = 1, b""
    while block := rest + stream.read(most_bytes - len(rest)):
        is_last = len(block) < most_bytes
        end = len(block) if is_last else block.rfind(b"\n") + 1
        if not end:
            raise RecordError(first, too_large(len(block) + 1, most_bytes, "at least "))
        whole, rest = block[:end], block[end:]
        ended = whole if whole.endswith(b"\n") else whole + b"\n"
        count = ended.count(b"\n")
        body = _without_empty_lines(ended)
        if body:
            yield Payload(first, first + count - 1, body, len(whole))
        first += count


def _without_empty_lines(body: bytes) -> bytes:
    if not (body.startswith((b"\n", b"\r")) or b"\n\n" in body or b"\n\r" in body):
        return body
    return b"".join(line + b"\n" for line in body.split(b"\n") if line.strip(b"\r"))


def recordio(stream: BinaryIO, most_bytes: int) -> Iterator[Record]:
    """Yield the records of a RecordIO file. Raises `RecordError` for one that is damaged, cut short or too large."""
    limit = None if most_bytes == UNLIMITED else most_bytes
    try:
        for number, frames in enumerate(read_frames(stream, most_bytes=limit), start=1):
            content = MAGIC.join(part.content for part in frames)
            yield Record(number, content, b"".join(part.framed for part in frames))
    except LargeRecordError as error:
        raise RecordError(error.record, too_large(error.size, error.most_bytes)) from error
    except DamagedRecordError as error:
        raise RecordError(error.record, error.problem) from error


def too_large(size: int, most_bytes: int, qualifier: str = "") -> str:
    """Return the sentence about a record that is over the limit."""
    return f"it has {qualifier}{size:,} bytes, over the limit of {most_bytes:,}; raise --max-payload-mb"
