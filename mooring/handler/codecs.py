"""Bodies to values and back by their media types. Nothing here ever unpickles."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from . import open_inference, open_inference_answers
from .errors import BodyDecodeError, UnsupportedAcceptError, UnsupportedContentTypeError
from .media_types import (
    CSV,
    FORM,
    JSON,
    JSON_LINES,
    MULTIPART,
    NPY,
    NPZ,
    OCTETS,
    OPEN_INFERENCE,
    TEXT,
    TRITON_BINARY,
    MediaType,
    negotiate,
    parse,
    spelling,
)
from .multipart import decode_form, decode_multipart
from .numpy_files import decode_npy, decode_npz, encode_npy, encode_npz
from .protocol import InferenceRequest, InferenceResponse
from .tables import decode_csv, encode_csv

# Marks an encoding: some programs begin UTF-8 with it, and JSON's grammar does not know it.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_text(body: bytes, media_type: MediaType) -> str:
    """Return a body as text. Raises `BodyDecodeError`."""
    try:
        return media_type.text(body)
    except ValueError as error:
        raise BodyDecodeError(media_type.name, str(error)) from error


def decode_json(body: bytes, media_type: MediaType) -> Any:
    """Return what a JSON body says. Raises `BodyDecodeError` naming line and column."""
    if not media_type.is_utf8 or body.startswith(BYTE_ORDER_MARK):
        body = decode_text(body, media_type).encode()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyDecodeError(JSON, str(error)) from error


def decode_json_each(bodies: Sequence[bytes], media_type: MediaType) -> list[Any]:
    """Return what several JSON bodies say. Raises `BodyDecodeError`, also for one that begins with a mark."""
    if not media_type.is_utf8:
        return [decode_json(body, media_type) for body in bodies]
    try:
        return [*map(orjson.loads, bodies)]
    except orjson.JSONDecodeError as error:
        raise BodyDecodeError(JSON, str(error)) from error


def decode_json_lines(body: bytes, media_type: MediaType) -> list[Any]:
    """Return one value per line that is not empty. Raises `BodyDecodeError` naming the line."""
    if not media_type.is_utf8 or body.startswith(BYTE_ORDER_MARK):
        body = decode_text(body, media_type).encode()
    values = []
    # Only this byte ends a line: JSON's text may hold the other characters that Python takes for ends of lines.
    for number, line in enumerate(body.split(b"\n"), start=1):
        if line.strip():
            try:
                values.append(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                raise BodyDecodeError(JSON_LINES, f"line {number}: {error}") from error
    return values


def decode_octets(body: bytes, _: MediaType) -> bytes:
    """Return the body itself."""
    return body


# --- decoding ---------------------------------------------------------------------------------------------------------

DECODERS: dict[str, Callable[[bytes, MediaType], Any]] = {
    JSON: decode_json,
    JSON_LINES: decode_json_lines,
    CSV: decode_csv,
    NPY: decode_npy,
    NPZ: decode_npz,
    TEXT: decode_text,
    OCTETS: decode_octets,
    MULTIPART: decode_multipart,
    FORM: decode_form,
    TRITON_BINARY: open_inference.decode,
    OPEN_INFERENCE: open_inference.decode,
}
# What a client may be told of: one type is our own front door's.
READABLE = tuple(name for name in DECODERS if name != OPEN_INFERENCE)


def decode(body: bytes, content_type: str) -> Any:
    """Return what a body holds: JSON's own values, a list for JSON Lines, fields by name for forms, else arrays.

    Raises `UnsupportedContentTypeError`, and `CallerError` for a body that is not what its type says.
    """
    media_type = parse(content_type)
    decoder = DECODERS.get(media_type.name)
    if decoder is None:
        raise UnsupportedContentTypeError(content_type, READABLE)
    return decoder(body, media_type)


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode_json(value: Any) -> bytes:
    """Return a value as JSON. Arrays become nested lists; NaN and infinities, which JSON cannot say, become null."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def encode_json_lines(value: Any) -> bytes:
    """Return each item of a value as a line of JSON; a value that has no items is one line."""
    has_items = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return b"".join(encode_json(item) + b"\n" for item in (value if has_items else [value]))


def encode_text(value: Any) -> bytes:
    """Return text as it is, and a number as digits. Raises `TypeError` for what has several parts."""
    plain = value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value
    if not isinstance(plain, (str, int, float)):
        raise TypeError(f"plain text is one value, the answer is of type {type(value).__name__}")
    return str(plain).encode()


def encode_octets(value: Any) -> bytes:
    """Return bytes as they are. Raises `TypeError` for anything else."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"an answer of type {type(value).__name__} is no bytes")
    return bytes(value)


ENCODERS: dict[str, Callable[[Any], bytes]] = {
    JSON: encode_json,
    CSV: encode_csv,
    NPY: encode_npy,
    JSON_LINES: encode_json_lines,
    NPZ: encode_npz,
    TEXT: encode_text,
    OCTETS: encode_octets,
    OPEN_INFERENCE: open_inference_answers.encode,
}
WRITABLE = tuple(ENCODERS)
# What a client may be told of.
OFFERED = tuple(name for name in ENCODERS if name != OPEN_INFERENCE)


def encode(value: Any, accept: str) -> tuple[bytes, str]:
    """Return a value as the type that a client likes best of those it can be written as, and that type.

    Raises `UnsupportedAcceptError` if it likes none of ours, or if the value cannot be written as any that it likes.
    """
    content_type = negotiate(accept, WRITABLE)
    if content_type == JSON:  # an error here is the handler's: it returned something that is no answer at all
        return encode_json(value), JSON
    offered, problem = WRITABLE, None
    while content_type is not None:
        try:
            return ENCODERS[content_type](value), _written(content_type, accept)
        except (TypeError, ValueError) as error:
            problem = problem or error
        offered = tuple(name for name in offered if name != content_type)
        content_type = negotiate(accept, offered)
    if problem is None:
        raise UnsupportedAcceptError(accept, OFFERED)
    raise UnsupportedAcceptError(f"{accept} ({problem})", (JSON,)) from problem


def encode_each(values: Sequence[Any], accept: str) -> list[tuple[bytes, str]]:
    """Return several values as the type that a client likes best; raises what `encode` does."""
    if negotiate(accept, WRITABLE) == JSON:
        return [(encode_json(value), JSON) for value in values]
    return [encode(value, accept) for value in values]


def respond(value: Any, request: InferenceRequest, accept: str) -> InferenceResponse:
    """Return a value as the answer to a request, in the request's own protocol if it came in one.

    Raises what `encode` does, and `TensorRequestError`.
    """
    if parse(request.content_type).name in open_inference.TYPES:
        return open_inference_answers.respond(value, request)
    return InferenceResponse(*encode(value, accept))


def _written(content_type: str, accept: str) -> str:
    """Return the type of an answer as its client is to read it."""
    return JSON if content_type == OPEN_INFERENCE else spelling(accept, content_type)


def _plain(value: Any) -> Any:
    """Give orjson something it knows: an array that is not contiguous, a tensor, a set."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and not value.flags.c_contiguous:
        return np.ascontiguousarray(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"an answer of type {type(value).__name__} cannot be written as JSON")
