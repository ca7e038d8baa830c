"""Bodies to arrays and back: JSON, JSON Lines, CSV, npy and npz. Nothing here ever unpickles."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from .errors import BodyDecodeError, UnsupportedAcceptError, UnsupportedContentTypeError
from .media_types import CSV, JSON, JSON_LINES, NPY, NPZ, MediaType, negotiate, parse

Array = NDArray[Any]

# Types whose bodies a user's function gets as text.
TEXT_TYPES = frozenset({JSON, JSON_LINES, CSV})
# What files of these kinds begin with; numpy takes anything else for a pickle, and says so.
NPY_BEGINS = b"\x93NUMPY"
ZIP_BEGINS = b"PK"


def decode_text(body: bytes, media_type: MediaType) -> str:
    """Return a body as text. Raises `BodyDecodeError`."""
    try:
        return body.decode(media_type.charset)
    except (UnicodeDecodeError, LookupError) as error:
        raise BodyDecodeError(media_type.name, str(error)) from error


def decode_json(body: bytes, media_type: MediaType) -> Any:
    """Return what a JSON body says. Raises `BodyDecodeError` naming line and column."""
    if media_type.charset.lower() not in ("utf-8", "utf8"):
        body = decode_text(body, media_type).encode()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyDecodeError(JSON, str(error)) from error


def decode_json_lines(body: bytes, media_type: MediaType) -> list[Any]:
    """Return one value per line that is not empty. Raises `BodyDecodeError` naming the line."""
    values = []
    for number, line in enumerate(decode_text(body, media_type).splitlines(), start=1):
        if line.strip():
            try:
                values.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise BodyDecodeError(JSON_LINES, f"line {number}: {error}") from error
    return values


def decode_csv(body: bytes, media_type: MediaType) -> Array:
    """Return a table of numbers, rows x columns. Raises `BodyDecodeError` naming the line."""
    rows: list[list[float]] = []
    for number, line in enumerate(decode_text(body, media_type).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append([float(cell) for cell in line.split(",")])
        except ValueError as error:
            raise BodyDecodeError(CSV, f"line {number}: {error}") from error
        if len(rows[-1]) != len(rows[0]):
            problem = f"line {number} has {len(rows[-1])} columns, the first has {len(rows[0])}"
            raise BodyDecodeError(CSV, problem)
    return np.array(rows, dtype=np.float64)


def decode_npy(body: bytes, _: MediaType) -> Array:
    """Return the array of an .npy body; never one of pickled objects. Raises `BodyDecodeError`."""
    if not body.startswith(NPY_BEGINS):
        raise BodyDecodeError(NPY, "it does not begin as an .npy file does")
    try:
        array: Array = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise BodyDecodeError(NPY, str(error)) from error
    return array


def decode_npz(body: bytes, _: MediaType) -> dict[str, Array]:
    """Return the arrays of an .npz body by name. Raises `BodyDecodeError`."""
    if not body.startswith(ZIP_BEGINS):
        raise BodyDecodeError(NPZ, "it does not begin as an .npz file does")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise BodyDecodeError(NPZ, str(error)) from error


DECODERS: dict[str, Callable[[bytes, MediaType], Any]] = {
    JSON: decode_json,
    JSON_LINES: decode_json_lines,
    CSV: decode_csv,
    NPY: decode_npy,
    NPZ: decode_npz,
}


def decode(body: bytes, content_type: str) -> Any:
    """Return what a body holds: JSON's own values, a list for JSON Lines, arrays for the rest.

    Raises `UnsupportedContentTypeError`, `BodyDecodeError`.
    """
    media_type = parse(content_type)
    decoder = DECODERS.get(media_type.name)
    if decoder is None:
        raise UnsupportedContentTypeError(content_type, tuple(DECODERS))
    return decoder(body, media_type)


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode_json(value: Any) -> bytes:
    """Return a value as JSON. Arrays become nested lists; NaN and infinities, which JSON cannot say, become null."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def encode_json_lines(value: Any) -> bytes:
    """Return each item of a value as a line of JSON; a value that has no items is one line."""
    items = value if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) != 0 else [value]
    return b"".join(encode_json(item) + b"\n" for item in items)


def encode_csv(value: Any) -> bytes:
    """Return a table as lines of comma-separated cells; a list of scalars is one cell a line.

    Raises `TypeError` for more than two dimensions.
    """
    table = np.asarray(value)
    if table.ndim > 2:
        raise TypeError(f"CSV has two dimensions, the answer has {table.ndim}")
    rows = table.reshape(-1, 1) if table.ndim < 2 else table
    return "".join(",".join(str(cell) for cell in row) + "\n" for row in rows.tolist()).encode()


def encode_npy(value: Any) -> bytes:
    """Return a value as an .npy body. Raises `ValueError` where it is no array of plain numbers or text."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


def encode_npz(value: Any) -> bytes:
    """Return a mapping of arrays, or one array called `output`, as an .npz body."""
    buffer = io.BytesIO()
    arrays = value if isinstance(value, dict) else {"output": value}
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: encode_json,
    CSV: encode_csv,
    NPY: encode_npy,
    JSON_LINES: encode_json_lines,
    NPZ: encode_npz,
}
WRITABLE = tuple(ENCODERS)


def encode(value: Any, accept: str) -> tuple[bytes, str]:
    """Return a value as the type that a client likes best, and that type.

    Raises `UnsupportedAcceptError` if it likes none of ours, or if the value cannot be written as the one it likes.
    """
    content_type = negotiate(accept, WRITABLE)
    if content_type is None:
        raise UnsupportedAcceptError(accept, WRITABLE)
    try:
        return ENCODERS[content_type](value), content_type
    except (TypeError, ValueError) as error:
        if content_type == JSON:
            raise  # the handler returned something that is no answer at all
        raise UnsupportedAcceptError(f"{accept} ({error})", (JSON,)) from error


def _plain(value: Any) -> Any:
    """Give orjson something it knows: an array that is not contiguous, a tensor, a set."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.dtype.kind in "biuf" else value.tolist()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"an answer of type {type(value).__name__} cannot be written as JSON")
