"""Tables as CSV bodies: numbers with or without a header line, or text. Which of them is read from the cells."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BodyDecodeError
from .media_types import CSV, MediaType

Array = NDArray[Any]


def decode_csv(body: bytes, media_type: MediaType) -> Array:
    """Return a table, rows x columns: of whole numbers, of floats (an empty cell is not a number), or of text.

    A first line without any number is a header and left out, unless nothing in the table is a number.
    Raises `BodyDecodeError` naming the line.
    """
    try:
        lines = list(_lines(media_type.text(body)))
    except ValueError as error:
        raise BodyDecodeError(CSV, str(error)) from error
    rows = [cells for _, cells in lines]
    if not rows:
        return np.empty((0, 0))
    for number, cells in lines:
        if len(cells) != len(rows[0]):
            problem = f"line {number} has {len(cells)} columns, the first has {len(rows[0])}"
            raise BodyDecodeError(CSV, problem)
    table = _numbers(rows)
    if table is None and len(rows) > 1 and not any(map(_is_number, rows[0])):
        table = _numbers(rows[1:])
    if table is not None:
        return table
    if not any(_is_number(cell) for row in rows for cell in row):
        return np.array(rows, dtype=object)
    has_header = not any(map(_is_number, rows[0]))
    wrong = ((number, cell) for number, cells in lines[has_header:] for cell in cells if not _fits(cell))
    number, cell = next(wrong)
    raise BodyDecodeError(CSV, f"line {number}: {cell[:40]!r} is no number")


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not empty, with its number."""
    if '"' not in text:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line.rstrip("\r").split(",")
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _numbers(rows: Sequence[Sequence[str]]) -> Array | None:
    """Return rows as an array of the narrowest kind of number that holds them all, None where a cell is none."""
    kinds: tuple[tuple[Callable[[str], Any], Any], ...] = ((int, np.int64), (float, np.float64), (_or_nan, np.float64))
    for read, dtype in kinds:
        try:
            return np.array([list(map(read, row)) for row in rows], dtype=dtype)
        except (ValueError, OverflowError):
            continue
    return None


def _or_nan(cell: str) -> float:
    return float(cell) if cell.strip() else float("nan")


def _fits(cell: str) -> bool:
    return _is_number(cell) or not cell.strip()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def encode_csv(value: Any) -> bytes:
    """Return a table as lines of comma-separated cells; a list of scalars is one cell a line.

    Raises `TypeError` for more than two dimensions, and for cells that are neither numbers nor text.
    """
    table = np.asarray(value)
    if table.ndim > 2:
        raise TypeError(f"CSV has two dimensions, the answer has {table.ndim}")
    rows = (table.reshape(-1, 1) if table.ndim < 2 else table).tolist()
    if table.dtype.kind in "biuf":
        return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    if not all(isinstance(cell, (str, int, float)) for row in rows for cell in row):
        raise TypeError("a cell of CSV is a number or text")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
