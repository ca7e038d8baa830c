"""Arrays as .npy and .npz bodies. Nothing is ever unpickled, and nothing read that claims more than it is worth."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from .errors import BodyDecodeError
from .media_types import NPY, NPZ, MediaType

Array = NDArray[Any]

# What files of these kinds begin with; numpy takes anything else for a pickle, and says so.
NPY_BEGINS = b"\x93NUMPY"
ZIP_BEGINS = b"PK"
# numpy's own limit: longer headers could make Python's parser run out of stack.
MOST_NPY_HEADER_BYTES = 10_000
# A few kilobytes of zip can claim far more than this.
MOST_NPZ_BYTES = 1 << 30
MOST_NPZ_ARRAYS = 1000
# The earliest date that zip knows: the same arrays make the same bytes.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def decode_npy(body: bytes, _: MediaType) -> Array:
    """Return the array of an .npy body; never one of pickled objects. Raises `BodyDecodeError`."""
    if not body.startswith(NPY_BEGINS):
        raise BodyDecodeError(NPY, "it does not begin as an .npy file does")
    # Version 1 gives its header's length in two bytes, later ones in four.
    width = 2 if body[6:7] == b"\x01" else 4
    start = 8 + width + int.from_bytes(body[8 : 8 + width], "little")
    if not 8 + width < start <= min(len(body), MOST_NPY_HEADER_BYTES):
        raise BodyDecodeError(NPY, "its header is cut short or too long")
    shape, is_fortran, dtype = _npy_header(body[:start])
    if dtype.hasobject:
        raise BodyDecodeError(NPY, "it holds pickled objects, which are not loaded because that can run any code")
    count = 1
    for size in shape:
        count *= size
    expected, given = count * dtype.itemsize, len(body) - start
    if expected != given or min(shape, default=0) < 0 or not dtype.itemsize:
        raise BodyDecodeError(NPY, f"expected {expected} bytes, got {given}")
    try:
        array: Array = np.empty(shape, dtype, order="F" if is_fortran else "C")
        if expected:
            array.ravel(order="K").view(np.uint8)[:] = np.frombuffer(body, np.uint8, offset=start)
    except (ValueError, TypeError, MemoryError) as error:
        raise BodyDecodeError(NPY, str(error)) from error
    return array


@lru_cache(maxsize=256)
def _npy_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type. Clients that send one shape send one header: it is parsed once."""
    read = {
        1: npy_format.read_array_header_1_0,
        2: npy_format.read_array_header_2_0,
    }.get(head[6])
    if read is None:
        raise BodyDecodeError(NPY, f"there is no version {head[6]} of the format that is known here")
    try:
        shape, is_fortran, dtype = read(io.BytesIO(head[8:]))
    except Exception as error:  # it is parsed as a Python literal, which fails in many ways
        raise BodyDecodeError(NPY, f"its header cannot be read: {error}") from error
    return shape, is_fortran, dtype


def decode_npz(body: bytes, media_type: MediaType) -> dict[str, Array]:
    """Return the arrays of an .npz body by name; a sparse matrix of scipy's as its parts. Raises `BodyDecodeError`."""
    if not body.startswith(ZIP_BEGINS):
        raise BodyDecodeError(NPZ, "it does not begin as an .npz file does")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            _check_archive(archive.infolist())
            return {
                name.removesuffix(".npy"): decode_npy(archive.read(name), media_type) for name in archive.namelist()
            }
    except BodyDecodeError as error:
        raise BodyDecodeError(NPZ, error.problem) from error
    except Exception as error:  # a damaged archive fails in many ways, encrypted and unknown ones too
        raise BodyDecodeError(NPZ, str(error)) from error


def _check_archive(entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_NPZ_ARRAYS:
        raise BodyDecodeError(NPZ, f"it holds more than {MOST_NPZ_ARRAYS} arrays")
    if sum(entry.file_size for entry in entries) > MOST_NPZ_BYTES:
        raise BodyDecodeError(NPZ, f"its arrays take more than {MOST_NPZ_BYTES:,} bytes")


def encode_npy(value: Any) -> bytes:
    """Return a value as an .npy body. Raises `ValueError` where it is no array of plain numbers or text."""
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ValueError("an array of objects cannot be written without pickling them")
    return _npy_head(array.dtype, array.shape) + array.tobytes()


@lru_cache(maxsize=256)
def _npy_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def encode_npz(value: Any) -> bytes:
    """Return a mapping of arrays, or one array called `output`, as an .npz body."""
    arrays = value if isinstance(value, Mapping) else {"output": value}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH), encode_npy(array))
    return buffer.getvalue()
