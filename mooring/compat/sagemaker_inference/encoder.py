"""Array-like values as JSON, CSV and .npy, byte for byte as the toolkit wrote them."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from . import content_types, errors


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _array_to_json(array_like: Any) -> str:
    return json.dumps(array_like, default=_plain)


def _array_to_npy(array_like: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array_like, allow_pickle=False)
    return stream.getvalue()


def _array_to_csv(array_like: Any) -> str:
    stream = io.StringIO()
    np.savetxt(stream, array_like, delimiter=",", fmt="%s")
    return stream.getvalue()


_encoder_map: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: _array_to_npy,
    content_types.CSV: _array_to_csv,
    content_types.JSON: _array_to_json,
}
SUPPORTED_CONTENT_TYPES = set(_encoder_map)


def encode(array_like: Any, content_type: str) -> Any:
    """Return a value as text or, for .npy, bytes. Raises `UnsupportedFormatError`."""
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in _encoder_map:
        raise errors.UnsupportedFormatError(content_type)
    return _encoder_map[name](array_like)
