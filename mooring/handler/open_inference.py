"""Requests of the Open Inference Protocol, version 2: named tensors as JSON, or as bytes that follow it.

The binary form is Triton's extension; the length of the JSON before the bytes comes with the content type.
Text travels as BYTES, and is given to models as Triton gives it: arrays of `bytes` objects.
"""

import contextvars
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from mooring.contract.errors import CallerError

from .media_types import OPEN_INFERENCE, TRITON_BINARY, MediaType

Array = NDArray[Any]

TYPES = frozenset({OPEN_INFERENCE, TRITON_BINARY})
BINARY_PARAMETER = "binary_data_output"
# The parameters of the two that say how much of the body is JSON.
HEADER_LENGTH = "header-length"
TRITON_HEADER_LENGTH = "json-header-size"
DATATYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
BFLOAT = "BF16"  # numpy has no such type: becomes float32, which holds all of its values
# An element of BYTES follows its length.
LENGTH_BYTES = 4
NOTHING = memoryview(b"")
# What numpy allows an array.
MOST_DIMENSIONS = 32
# The types of JSON's values that become floats.
FLOAT_KINDS = frozenset({float, int, bool, type(None)})


class TensorRequestError(CallerError):
    """The body is no request of the protocol."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The inference request cannot be read: {problem}.")


@dataclass(frozen=True)
class TensorRequest:
    """A request as its tensors by name, and how its answer is to be written."""

    arrays: Mapping[str, Array]
    id: str | None = None
    outputs: Mapping[str, bool] = field(default_factory=dict)  # those wanted -> whether as bytes; none named: all
    is_binary: bool = False  # whether an output that is not named is wanted as bytes
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_triton: bool = False  # whether the length of the JSON goes into the content type


def is_tensor_request(value: Any) -> bool:
    """Whether a JSON object is a request of the protocol: its inputs are a list of objects with a datatype."""
    inputs = value.get("inputs") if isinstance(value, dict) else None
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], dict) and "datatype" in inputs[0]


def decode_request(body: bytes, media_type: MediaType) -> TensorRequest:
    """Return a request. Raises `TensorRequestError` naming the input at fault."""
    length = _header_length(media_type, len(body))
    try:
        given = orjson.loads(memoryview(body)[:length])
    except orjson.JSONDecodeError as error:
        raise TensorRequestError(f"its JSON is none: {error}") from error
    return read_request(given, memoryview(body)[length:], is_triton=media_type.name == TRITON_BINARY)


def decode(body: bytes, media_type: MediaType) -> Any:
    """Return a request's tensors by name, or its only one. Raises `TensorRequestError`."""
    arrays = decode_request(body, media_type).arrays
    return next(iter(arrays.values())) if len(arrays) == 1 else dict(arrays)


def read_request(given: Any, tail: memoryview = NOTHING, *, is_triton: bool = False) -> TensorRequest:
    """Return a request from its parsed JSON and the bytes after it. Raises `TensorRequestError`."""
    if not isinstance(given, dict):
        raise TensorRequestError("it is no JSON object")
    parameters = _table(given, "parameters", "the request")
    arrays: dict[str, Array] = {}
    for item in _objects(given, "inputs"):
        name = _name(item, "an input")
        if name in arrays:
            raise TensorRequestError(f"input '{name}' is there twice")
        try:
            arrays[name], tail = _read_input(item, tail)
        except (ValueError, OverflowError) as error:
            raise TensorRequestError(f"input '{name}': {error}") from error
    if not arrays:
        raise TensorRequestError('it has no "inputs"')
    if tail:
        raise TensorRequestError(f"{len(tail)} bytes are left after the last input")
    is_binary = parameters.get(BINARY_PARAMETER) is True
    outputs = {_name(item, "an output"): _is_binary(item, default=is_binary) for item in _objects(given, "outputs")}
    identifier = given.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise TensorRequestError('its "id" is no text')
    return TensorRequest(arrays, identifier, outputs, is_binary, parameters, is_triton)


def _header_length(media_type: MediaType, most: int) -> int:
    given = media_type.parameters.get(HEADER_LENGTH) or media_type.parameters.get(TRITON_HEADER_LENGTH)
    if given is None:
        return most
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and 0 < int(given) <= most):
        raise TensorRequestError(f'the length of its JSON is "{given[:20]}", of {most} bytes in all')
    return int(given)


def _objects(given: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = given.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise TensorRequestError(f'its "{key}" are no list of objects')
    return items


def _table(given: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    table = given.get(key) or {}
    if not isinstance(table, dict):
        raise TensorRequestError(f'the "{key}" of {where} are no object')
    return table


def _name(item: Mapping[str, Any], what: str) -> str:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise TensorRequestError(f"{what} has no name")
    return name


def _is_binary(output: Mapping[str, Any], *, default: bool) -> bool:
    parameters = _table(output, "parameters", f"output '{output['name']}'")
    for unsupported in ("classification", "shared_memory_region"):
        if parameters.get(unsupported):
            raise TensorRequestError(f"output '{output['name']}': \"{unsupported}\" is not supported here")
    return bool(parameters.get("binary_data", default))


def _read_input(item: Mapping[str, Any], tail: memoryview) -> tuple[Array, memoryview]:
    """Return an input's array, and what is left of the bytes. Raises `ValueError`."""
    datatype, shape = item.get("datatype"), item.get("shape")
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != BFLOAT):
        raise ValueError(f"datatype {str(datatype)[:20]!r} is none of {', '.join([*DATATYPES, BFLOAT])}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError('its "shape" is no list of sizes')
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"it has more than {MOST_DIMENSIONS} dimensions")
    parameters = _table(item, "parameters", f"input '{item['name']}'")
    if "shared_memory_region" in parameters:
        raise ValueError("shared memory is not supported here")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in item:
            raise ValueError('it has neither "data" nor the parameter "binary_data_size"')
        flat = _from_json(item["data"], datatype)
    else:
        if type(size) is not int or not 0 <= size <= len(tail):
            raise ValueError(f"its binary_data_size is {size!r}, but {len(tail)} bytes follow")
        flat, tail = _from_bytes(tail[:size], datatype), tail[size:]
    if flat.size != math.prod(shape):
        raise ValueError(f"it has {flat.size} elements, but its shape {shape} has {math.prod(shape)}")
    return flat.reshape(shape), tail


def _from_json(data: Any, datatype: str) -> Array:
    if datatype != "BYTES":
        return array_of(data, np.dtype(np.float32 if datatype == BFLOAT else DATATYPES[datatype]))
    texts = array_of(data, np.dtype(object)).ravel().tolist()
    return _objects_of([text.encode() for text in texts])


def _from_bytes(data: memoryview, datatype: str) -> Array:
    if datatype == "BYTES":
        return _objects_of(_elements(data))
    dtype = np.dtype(np.uint16 if datatype == BFLOAT else DATATYPES[datatype]).newbyteorder("<")
    if len(data) % dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no whole number of {datatype}")
    if datatype == "BOOL":
        return np.frombuffer(data, np.uint8).astype(np.bool_)
    array: Array = np.frombuffer(data, dtype)
    if datatype == BFLOAT:  # the upper half of a float32
        widened: Array = (array.astype(np.uint32) << 16).view(np.float32)
        return widened
    return array.astype(dtype.newbyteorder("="))  # a copy, so that it lies where its elements must


def _elements(data: memoryview) -> list[bytes]:
    """Cut BYTES into elements, each after its length. Raises `ValueError`."""
    elements: list[bytes] = []
    start = 0
    while start < len(data):
        first = start + LENGTH_BYTES
        stop = first + int.from_bytes(data[start:first], "little")
        if first > len(data) or stop > len(data):
            raise ValueError(f"element {len(elements)} is cut short")
        elements.append(bytes(data[first:stop]))
        start = stop
    return elements


def _objects_of(elements: Sequence[bytes]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


class _Strict(threading.local):
    """A context of each thread in which numpy raises what overflows.

    To enter `np.errstate` takes longer than to make the array of a small request.
    """

    def __init__(self) -> None:
        self.context = contextvars.Context()
        self.context.run(np.seterr, over="raise")


_strict = _Strict()


def array_of(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return JSON's nested lists as an array of a type; whole numbers keep their values, null is a float that is none.

    Raises `ValueError` for what is not regular, not of that kind, or out of its range.
    """
    if dtype.kind == "f":
        # Found out before numpy sees it, which would read text as numbers, and give all texts the longest one's room.
        if not (adds_up(value) or kinds_of(value) <= FLOAT_KINDS):
            raise ValueError(_misfit(np.array(value, dtype=object), dtype))
        try:
            made: Array = _strict.context.run(np.array, value, dtype)
            return made
        except (FloatingPointError, OverflowError) as error:
            raise ValueError(f"it holds numbers beyond the range of {dtype}") from error
        except (ValueError, TypeError) as error:
            raise ValueError(_misfit(np.array(value, dtype=object), dtype)) from error
    # Through objects: otherwise numpy would make floats of large numbers, and one length of all texts.
    array = np.array(value, dtype=object)
    kinds = set(map(type, array.ravel().tolist()))
    if not kinds <= ({str} if dtype.kind == "O" else {int, bool}):
        raise ValueError(_misfit(array, dtype))
    if dtype.kind == "b" and not set(array.ravel().tolist()) <= {0, 1}:
        raise ValueError("it holds numbers, which do not fit bool")
    try:
        return array.astype(dtype)
    except OverflowError as error:
        raise ValueError(f"it holds numbers beyond the range of {dtype}") from error


def kinds_of(value: Any) -> set[type]:
    """Return the types of what nested lists hold, with `list` itself where only some items of a level are lists."""
    items, kinds = [value], {type(value)}
    while kinds == {list}:
        items = [*chain.from_iterable(items)]
        kinds = set(map(type, items))
    return kinds


def adds_up(value: Any) -> bool:
    """Whether nested lists hold numbers only, as far as they are regular: nothing else of JSON adds up.

    Takes a quarter of the time that to look at their types takes.
    """
    rows = [value]
    try:
        while rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], list):
            rows = [*chain.from_iterable(rows)]
        for row in rows:
            sum(row)
    except (TypeError, OverflowError):
        return False
    return True


def named_kinds(kinds: Iterable[type]) -> str:
    """Return the types of JSON's values as clients know them."""
    names = {str: "text", float: "float64", type(None): "null", dict: "objects", bool: "bool", int: "int64"}
    return ", ".join(sorted(names.get(kind, kind.__name__) for kind in kinds))


def _misfit(array: Array, dtype: np.dtype[Any]) -> str:
    kinds = {type(item) for item in array.ravel().tolist()}
    if list in kinds:
        return "it is not a regular array"
    return f"it holds {named_kinds(kinds)}, which does not fit {'text' if dtype.kind == 'O' else dtype}"
