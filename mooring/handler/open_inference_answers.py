"""Answers of the Open Inference Protocol, version 2: what handlers return, as named tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from .media_types import JSON, OCTETS, TRITON_BINARY, parse
from .open_inference import (
    DATATYPES,
    LENGTH_BYTES,
    TRITON_HEADER_LENGTH,
    Array,
    TensorRequest,
    TensorRequestError,
    decode_request,
)
from .protocol import InferenceRequest, InferenceResponse

# Headers between the front door, hosts and clients.
LENGTH_HEADER = "inference-header-content-length"
MODEL_NAME_HEADER = "x-mooring-model-name"
MODEL_VERSION = "1"
NAMES = {np.dtype(kind).str: name for name, kind in DATATYPES.items()}


def encode_response(
    request: TensorRequest, model_name: str, outputs: Sequence[tuple[str, Array]]
) -> tuple[bytes, str, dict[str, str]]:
    """Return the body, content type and headers of an answer, each output as JSON or bytes as it is wanted.

    Raises `TensorRequestError` if an output is wanted that is not there, or wanted as JSON and is no text.
    """
    given = dict(outputs)
    unknown = sorted(set(request.outputs) - set(given))
    if unknown:
        there = ", ".join(map(repr, given))
        raise TensorRequestError(f"there is no output {', '.join(map(repr, unknown))}; the model has {there}")
    tails: list[bytes] = []
    entries = []
    for name in request.outputs or given:
        array = np.asarray(given[name])
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array.dtype), "shape": array.shape}
        if request.outputs.get(name, request.is_binary):
            tails.append(_to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            entry["data"] = _to_json(name, array)
        entries.append(entry)
    head = {"model_name": model_name, "model_version": MODEL_VERSION}
    head |= {"id": request.id} if request.id is not None else {}
    body = orjson.dumps(head | {"outputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return body, JSON, {}
    whole = b"".join((body, *tails))
    if request.is_triton:
        return whole, f"{TRITON_BINARY};{TRITON_HEADER_LENGTH}={len(body)}", {}
    return whole, OCTETS, {LENGTH_HEADER: str(len(body))}


def respond(value: Any, request: InferenceRequest) -> InferenceResponse:
    """Return what a handler made of a request of the protocol as its answer.

    Raises `TensorRequestError`, and `TypeError` for a value that has no datatype in the protocol.
    """
    asked = decode_request(request.body, parse(request.content_type))
    body, content_type, headers = encode_response(asked, request.headers.get(MODEL_NAME_HEADER, ""), named(value))
    return InferenceResponse(body, content_type, headers=headers)


def encode(value: Any) -> bytes:
    """Return a value as an answer to nobody's request in particular: all outputs, as JSON."""
    return encode_response(TensorRequest({}), "", named(value))[0]


def named(value: Any) -> list[tuple[str, Array]]:
    """Return a mapping's values as outputs, and a sequence's arrays as `output_0` and so on; else there is one output.

    Raises `TypeError`.
    """
    if isinstance(value, (list, tuple)) and any(isinstance(item, np.ndarray) for item in value):
        value = {f"output_{index}": item for index, item in enumerate(value)}
    items = value.items() if isinstance(value, Mapping) else [("output_0", value)]
    try:
        return [(str(name), np.asarray(array)) for name, array in items]
    except ValueError as error:
        raise TypeError("an output is not a regular array") from error


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a type of elements. Raises `TypeError` if it has none."""
    if dtype.kind in "USO":
        return "BYTES"
    name = NAMES.get(dtype.newbyteorder("=").str)
    if name is None:
        raise TypeError(f"an output of type {dtype} has no datatype in the protocol")
    return name


def _to_json(name: str, array: Array) -> Any:
    if datatype_of(array.dtype) != "BYTES":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).ravel()
    try:
        return [item.decode() if isinstance(item, bytes) else item for item in _texts(array)]
    except UnicodeDecodeError as error:
        raise TensorRequestError(f"output '{name}' is no text: ask for it with the parameter binary_data") from error


def _to_bytes(array: Array) -> bytes:
    if datatype_of(array.dtype) != "BYTES":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    elements = (item if isinstance(item, bytes) else item.encode() for item in _texts(array))
    return b"".join(len(element).to_bytes(LENGTH_BYTES, "little") + element for element in elements)


def _texts(array: Array) -> list[str | bytes]:
    items: list[Any] = array.ravel().tolist()
    if not all(isinstance(item, (str, bytes)) for item in items):
        raise TypeError("an output of objects has no datatype in the protocol")
    return items
