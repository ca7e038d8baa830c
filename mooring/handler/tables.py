"""Tables as CSV bodies: numbers with or without a header line, or text. Which of them is read from the cells."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from .errors import BodyDecodeError
from .media_types import CSV, MediaType

Array = NDArray[Any]

# What only a float is written with. Some versions of numpy would take 1.5 for a whole number, and cut it.
FLOATING = re.compile("[.eEnN]")
# What programs write where a value is missing, in lower case; "nan" is a number.
MISSING = frozenset({"na", "n/a", "#n/a", "null", "none", "?", "-"})


def decode_csv(body: bytes, media_type: MediaType) -> Array:
    """Return a table, rows x columns: of whole numbers, of floats (an empty cell is not a number), or of text.

    A first line is a header and left out if it has no number and not only cells that are empty or say that a value is
    missing, unless nothing in the table is a number.
    Raises `BodyDecodeError` naming the line.
    """
    try:
        text = media_type.text(body)
        first, _, rest = text.partition("\n")
        has_header = bool(rest.strip()) and _is_header(cell.strip('"\r') for cell in first.split(","))
        table = _numbers(rest if has_header else text)
        if table is not None and (not has_header or table.shape[1] == len(first.split(","))):
            return table
        return _with_care(list(_lines(text)))
    except ValueError as error:
        raise BodyDecodeError(CSV, str(error)) from error


def _numbers(text: str) -> Array | None:
    """Return a table of nothing but numbers, None if it is something else or empty."""
    if not text.strip():
        return None
    for dtype in (np.float64,) if FLOATING.search(text) else (np.int64, np.float64):
        try:
            return np.loadtxt(io.StringIO(text), dtype, comments=None, delimiter=",", ndmin=2, quotechar='"')
        except ValueError:
            continue
    return None


def _with_care(lines: Sequence[tuple[int, list[str]]]) -> Array:
    """Return a table with empty cells, or of text. Raises `ValueError` naming the line that is no part of a table."""
    if not lines:
        return np.empty((0, 0))
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            raise ValueError(f"line {number} has {len(cells)} columns, the first has {width}")
    rows = [cells for _, cells in lines]
    if not any(_is_number(cell) for row in rows for cell in row):
        return np.array(rows, dtype=object)
    has_header = _is_header(rows[0])
    for number, cells in lines[has_header:]:
        for cell in cells:
            if cell.strip() and not _is_number(cell):
                raise ValueError(f"line {number}: {cell[:40]!r} is no number")
    return np.array([[float(cell) if cell.strip() else np.nan for cell in row] for row in rows[has_header:]])


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


def _is_header(cells: Iterable[str]) -> bool:
    """Whether cells are names, some of which may be empty, as that of an index is.

    A row of missing values alone is none: left out, it would shift all rows behind it.
    """
    names = [cell.strip().lower() for cell in cells]
    return not any(map(_is_number, names)) and any(name and name not in MISSING for name in names)


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
    rows = table.reshape(-1, 1) if table.ndim < 2 else table
    if not rows.size:
        return b"\n" * len(rows)
    if rows.dtype.kind in "iuf" and np.isfinite(rows).all():  # as JSON writes it, which is written much faster
        plain = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
        return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].replace(b"],[", b"\n") + b"\n"
    if rows.dtype.kind in "biuf":
        return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    if not all(isinstance(cell, (str, int, float)) for row in rows.tolist() for cell in row):
        raise TypeError("a cell of CSV is a number or text")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows.tolist())
    return text.getvalue().encode()
