"""Samples by number, for loaders that shuffle a whole epoch: where each begins is found once, when files are opened."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mooring.artifact.recordio import read_records, record_offsets
from mooring.contract.errors import UserCodeError

from .files import is_packed
from .formats import Csv, Format, Lines, Records
from .progress import Progress
from .samples import Raw, SampleError

BLOCK_BYTES = 4 << 20
NEWLINE, RETURN, QUOTE = b'\n\r"'

Offsets = NDArray[np.int64]


class NoRandomAccessError(UserCodeError):
    """A file whose samples cannot be reached one by one."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        super().__init__(f"{file}: {problem}, so its samples cannot be reached by number. Read it with batches().")


class Rows(Dataset[Any]):
    """The samples of files by number, from 0, in the order of files and lines."""

    def __init__(self, files: list[Path], begins: list[Offsets], ends: list[Offsets], sample_format: Format) -> None:
        self._files = files
        self._begins = begins
        self._ends = ends
        self._format = sample_format
        self._first = np.concatenate([[0], np.cumsum([len(part) for part in begins])])

    @classmethod
    def open(cls, files: list[Path], sample_format: Format, progress: Progress) -> "Rows":
        """Find where samples begin and end. Raises `NoRandomAccessError`, `DamagedRecordError`, `SampleError`."""
        for file in files:
            if is_packed(file):
                raise NoRandomAccessError(file, "is compressed")
        spans = [_spans(file, sample_format, progress) for file in files]
        return cls(files, [begins for begins, _ in spans], [ends for _, ends in spans], sample_format)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, and none has number {index}")
        index %= len(self)
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        file, place = self._files[number], index - int(self._first[number])
        begin, end = int(self._begins[number][place]), int(self._ends[number][place])
        # Opened each time: workers are forked, and would share the place where an open file is read.
        with file.open("rb", buffering=0) as stream:
            stream.seek(begin)
            content = stream.read(end - begin) or b""
        if len(content) < end - begin:
            raise SampleError(file, "sample", place + 1, "the file has become shorter since it was opened")
        return self._parse(file, content, begin, place)

    def _parse(self, file: Path, content: bytes, begin: int, place: int) -> Any:
        if isinstance(self._format, Records):
            content = next(read_records(io.BytesIO(content), str(file), offset=begin))
            return self._format.parse(Raw(content, str(file), place + 1))
        raw = Raw(content, str(file), place + 1)
        try:
            return self._format.parse(raw)
        except SampleError:
            # Samples are counted without empty lines; who looks for the error counts all of them.
            return self._format.parse(raw._replace(number=_lines_before(file, begin) + 1))


def _spans(file: Path, sample_format: Format, progress: Progress) -> tuple[Offsets, Offsets]:
    """Return where the samples of a file begin and end."""
    if isinstance(sample_format, Records):
        return _record_spans(file, progress)
    if isinstance(sample_format, Csv):
        begins, ends = _line_spans(file, progress, has_quotes=True)
        return (begins[1:], ends[1:]) if sample_format.has_header else (begins, ends)
    if isinstance(sample_format, Lines):
        return _line_spans(file, progress, has_quotes=False)
    raise NoRandomAccessError(file, f"{type(sample_format).__name__} is no format of lines or records")


def _record_spans(file: Path, progress: Progress) -> tuple[Offsets, Offsets]:
    read = 0

    def on_read(offset: int) -> None:
        nonlocal read
        progress.advance(offset - read)
        read = offset

    begins = np.array(record_offsets(file, on_read), dtype=np.int64)
    return begins, np.append(begins[1:], file.stat().st_size) if len(begins) else begins


def _line_spans(file: Path, progress: Progress, *, has_quotes: bool) -> tuple[Offsets, Offsets]:
    """Return where lines that are not empty begin and end, without their ends."""
    size = file.stat().st_size
    newlines = [*_newlines(file, progress.advance, has_quotes=has_quotes)]
    ends = np.concatenate([*newlines, np.array([size], dtype=np.int64)])
    begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1] + 1])
    with file.open("rb") as stream:
        if stream.read(3) == b"\xef\xbb\xbf":
            begins[0] = 3
    is_full = ends > begins
    return _without_returns(file, begins[is_full], ends[is_full])


def _newlines(file: Path, on_read: Callable[[int], None], *, has_quotes: bool) -> Iterator[Offsets]:
    """Yield where lines end, block by block; an end within quotes is none."""
    offset = quotes = 0
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            content = np.frombuffer(block, dtype=np.uint8)
            found = np.flatnonzero(content == NEWLINE)
            if has_quotes and (quotes or b'"' in block):
                counted = quotes + np.cumsum(content == QUOTE)
                found = found[counted[found] % 2 == 0]
                quotes = int(counted[-1]) % 2
            yield found + offset
            offset += len(block)
            on_read(len(block))


def _without_returns(file: Path, begins: Offsets, ends: Offsets) -> tuple[Offsets, Offsets]:
    """Leave out the carriage returns at ends of lines, and lines that are nothing else."""
    if not len(ends):
        return begins, ends
    content = np.memmap(file, dtype=np.uint8, mode="r")
    ends = ends - (content[ends - 1] == RETURN)
    del content
    is_full = ends > begins
    return begins[is_full], ends[is_full]


def _lines_before(file: Path, offset: int) -> int:
    """Return how many lines end before a place in a file."""
    count = 0
    with file.open("rb") as stream:
        while offset and (block := stream.read(min(offset, BLOCK_BYTES))):
            count += block.count(b"\n")
            offset -= len(block)
    return count
