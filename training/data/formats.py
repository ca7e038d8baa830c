"""Formats: how a file or pipe falls into samples, and how the bytes of one become what a loop is given.

A format cuts cheaply and parses dearly: every rank and worker cuts all of a shared stream, and parses its own share.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from mooring.artifact.recordio import read_records
from mooring.contract.channels import RecordWrapper
from mooring.contract.errors import SettingError, UserCodeError
from mooring.handler.media_types import CSV, JSON_LINES, TEXT, parse

from .samples import Raw, SampleError

# No text has a longer line; a stream without ends of lines is not to fill the memory.
MOST_LINE_BYTES = 256 << 20
RECORD_IO = "application/x-recordio"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Format(Protocol):
    """What a channel's samples look like."""

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield the samples of a stream. Raises `SampleError`, `DamagedRecordError`."""

    def parse(self, raw: Raw) -> Any:
        """Return a sample as the loop is given it. Raises `SampleError`."""


class UnknownFormatError(UserCodeError):
    """Nothing says how the data of a channel is to be read."""

    def __init__(self, channel: str, said: str | None) -> None:
        self.channel = channel
        self.said = said
        content_type = f'content type "{said}" is none that is known here' if said else "it has no content type"
        super().__init__(
            f"How to read channel '{channel}' is not known: {content_type}. Give the job's input a content type "
            "(text/csv, application/jsonlines, application/x-recordio, text/plain), or a format, such as Csv(), here."
        )


@dataclass(frozen=True)
class Lines:
    """Each line that is not empty, as text."""

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield the lines without their ends."""
        for number, line in _lines(stream, name):
            content = line.rstrip(b"\r\n")
            if content:
                yield Raw(content, name, number)

    def parse(self, raw: Raw) -> Any:
        """Return the line as text."""
        return text_of(raw)


@dataclass(frozen=True)
class JsonLines(Lines):
    """Each line that is not empty, as the value it holds."""

    def parse(self, raw: Raw) -> Any:
        """Return what the line holds."""
        try:
            return json.loads(text_of(raw))
        except json.JSONDecodeError as error:
            raise SampleError(raw.file, "line", raw.number, f"is not JSON: {error.msg}", error.colno) from error


@dataclass(frozen=True)
class Csv:
    """Rows of numbers, the label first, as SageMaker's built-in algorithms take them: `(features, label)`.

    Without labels a sample is its features; with several it has a tensor of them. `as_text` gives the fields as they
    are. A quoted field may hold commas, quotes and ends of lines.
    """

    label_size: int = 1
    delimiter: str = ","
    has_header: bool = False
    as_text: bool = False

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield the rows, but for the header."""
        rows = _rows(stream, name)
        if self.has_header:
            next(rows, None)
        yield from rows

    def parse(self, raw: Raw) -> Any:
        """Return the row's features and label."""
        fields = self._fields(raw)
        if self.as_text:
            return fields
        if len(fields) <= self.label_size:
            problem = f"has {len(fields)} columns, of which {self.label_size} are labels; there are no features"
            raise SampleError(raw.file, "line", raw.number, problem)
        try:
            values = torch.from_numpy(np.array([float(field) for field in fields], dtype=np.float32))
        except ValueError as error:
            raise self._not_a_number(raw, fields) from error
        if not self.label_size:
            return values
        label = values[0] if self.label_size == 1 else values[: self.label_size]
        return values[self.label_size :], label

    def _fields(self, raw: Raw) -> list[str]:
        text = text_of(raw)
        if '"' not in text:
            return text.split(self.delimiter)
        try:
            return next(csv.reader([text], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            raise SampleError(raw.file, "line", raw.number, f"is not CSV: {error}") from error

    def _not_a_number(self, raw: Raw, fields: list[str]) -> SampleError:
        for column, field in enumerate(fields, start=1):
            try:
                float(field)
            except ValueError:
                shown = field if len(field) <= 40 else field[:37] + "..."
                hint = "; is it a header? Then give has_header=True" if raw.number == 1 else ""
                return SampleError(raw.file, "line", raw.number, f'"{shown}" is not a number{hint}', column)
        raise AssertionError("every field is a number")


def _rows(stream: BinaryIO, name: str) -> Iterator[Raw]:
    """Yield the lines that are not empty, those together that a quoted field spans."""
    lines = _lines(stream, name)
    for number, line in lines:
        whole = line
        if b'"' in line:
            quotes = line.count(b'"')
            while quotes % 2:
                _, following = next(lines, (0, b""))
                whole += following
                quotes += following.count(b'"')
                if not following or len(whole) > MOST_LINE_BYTES:
                    raise SampleError(name, "line", number, "a quoted field has no end")
        content = whole.rstrip(b"\r\n")
        if content:
            yield Raw(content, name, number)


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield every line with its number, a byte order mark left out."""
    for number, line in enumerate(iter(lambda: stream.readline(MOST_LINE_BYTES), b""), start=1):
        if len(line) == MOST_LINE_BYTES:
            raise SampleError(name, "line", number, f"has over {MOST_LINE_BYTES >> 20} MiB; this is no text")
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


@dataclass(frozen=True)
class Records:
    """RecordIO: each record's bytes."""

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield the records."""
        for number, content in enumerate(read_records(stream, name), start=1):
            yield Raw(content, name, number)

    def parse(self, raw: Raw) -> Any:
        """Return the record."""
        return raw.content


def text_of(raw: Raw) -> str:
    """Return a sample's bytes as text. Raises `SampleError`."""
    try:
        return raw.content.decode()
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is {error.object[error.start]:#04x}, which is not UTF-8"
        raise SampleError(raw.file, "line", raw.number, problem) from error


def format_of(channel: str, content_type: str | None, wrapper: RecordWrapper) -> Format:
    """Return the format that a channel's description says. Raises `UnknownFormatError`.

    >>> format_of("train", "text/csv; label_size=0", RecordWrapper.NONE)
    Csv(label_size=0, delimiter=',', has_header=False, as_text=False)
    """
    if wrapper is RecordWrapper.RECORD_IO:
        return Records()
    kind = parse(content_type or "")
    if kind.name == CSV:
        return _csv(kind.parameters)
    formats: dict[str, Format] = {JSON_LINES: JsonLines(), RECORD_IO: Records(), TEXT: Lines()}
    if kind.name not in formats:
        raise UnknownFormatError(channel, content_type)
    return formats[kind.name]


def _csv(parameters: Mapping[str, str]) -> Csv:
    """Return what the parameters of `text/csv` say: `label_size`, and RFC 4180's `header`."""
    labels = parameters.get("label_size", "1")
    if not labels.isdecimal():
        raise SettingError("The content type's label_size", labels, "a whole number")
    return Csv(label_size=int(labels), has_header=parameters.get("header", "") == "present")
