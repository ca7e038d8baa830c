"""Bodies as numpy arrays, as the toolkit decoded them, but for .npy bodies of pickled objects: those are refused."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from . import content_types, errors

Body = str | bytes | bytearray


def _text(body: Body) -> str:
    return body if isinstance(body, str) else bytes(body).decode("utf-8")


def _json_to_numpy(string_like: Body, dtype: Any = None) -> Any:
    return np.array(json.loads(_text(string_like)), dtype=dtype)


def _csv_to_numpy(string_like: Body, dtype: Any = None) -> Any:
    return np.genfromtxt(io.StringIO(_text(string_like)), dtype=dtype, delimiter=",")


def _npy_to_numpy(npy_array: bytes) -> Any:
    return np.load(io.BytesIO(npy_array), allow_pickle=False)


def _npz_to_sparse(npz_bytes: bytes) -> Any:
    import scipy.sparse

    return scipy.sparse.load_npz(io.BytesIO(npz_bytes))


_decoder_map: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: _npy_to_numpy,
    content_types.CSV: _csv_to_numpy,
    content_types.JSON: _json_to_numpy,
    content_types.NPZ: _npz_to_sparse,
}


def decode(obj: Any, content_type: str) -> Any:
    """Return a body as an array, for npz as a scipy sparse matrix. Parameters of the content type do not matter.

    Raises `UnsupportedFormatError`, `UnreadableBodyError`, `ImportError` for npz where scipy is missing.
    """
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in _decoder_map:
        raise errors.UnsupportedFormatError(content_type)
    try:
        return _decoder_map[name](obj)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise errors.UnreadableBodyError(name, str(error)) from error
