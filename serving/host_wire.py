"""How a host reads requests and writes answers on the wire. Header lines repeat, so both directions remember them."""

import logging
import operator
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from mooring.contract.errors import MooringError
from mooring.handler.protocol import InferenceResponse

from . import frames
from .errors import report
from .frames import Kind
from .remembered import remembered

logger = logging.getLogger(__name__)

# What may stand in a header a handler sets: RFC 9110, without the control characters that would split a response.
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
LENGTH = re.compile(r"[0-9]{1,18}")


# Lines that say how an answer is framed are written by who frames it. Handlers that pass on what another server
# answered set them, too. The length of a stream is known to its handler alone.
NOT_OF_STREAM = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
NOT_OF_WHOLE = NOT_OF_STREAM | {"content-length"}
STATUSES = range(200, 600)
WITHOUT_BODY = (204, 304)  # RFC 9110, 6.4.1


@remembered
def read_request_lines(meta: bytes) -> tuple[str, str, Mapping[str, str]]:
    """Return content type, accept and all headers of a request; absent ones are empty."""
    headers = dict(frames.decode_lines(meta))
    return headers.get("content-type", ""), headers.get("accept", ""), headers


def checked_status(response: InferenceResponse) -> int:
    """Return the status of a response. Raises `ValueError` for one that no answer can have."""
    try:
        status = operator.index(response.status)
    except TypeError:
        status = 0
    if status not in STATUSES:
        raise ValueError(f"The handler set the status {response.status!r}; it is a whole number from 200 to 599.")
    return status


def response_lines(response: InferenceResponse, left_out: Collection[str]) -> bytes:
    """Return the header lines of a response but some. Raises `ValueError` for a header that would split it."""
    if not response.headers:
        return _content_type_line(response.content_type)
    pairs = [("content-type", response.content_type), *response.headers.items()]
    for name, value in pairs:
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"The handler set the header {name!r} to {value!r}, which HTTP does not allow.")
    named = [(name.lower(), value) for name, value in pairs]
    if any(name == "content-length" and not LENGTH.fullmatch(value) for name, value in named):
        raise ValueError("The handler set a content-length that is no number.")
    return frames.encode_lines([pair for pair in named if pair[0] not in left_out])


def without_length(lines: bytes) -> bytes:
    """Return the header lines of a stream that is answered whole: who writes it says how long it is."""
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"content-length:"))


@lru_cache(maxsize=256)
def _content_type_line(content_type: str) -> bytes:
    if not HEADER_VALUE.fullmatch(content_type):
        raise ValueError(f"The handler set the content type {content_type!r}, which HTTP does not allow.")
    return frames.encode_lines([("content-type", content_type)])


def error_frame(frame_id: int, error: BaseException) -> bytes:
    """Encode an error: its class names, so that the door can choose a status, and a sentence fit for a client."""
    if isinstance(error, (MooringError, MemoryError)):
        message = str(error) or "Out of memory."
    else:
        # The text of a stranger's exception may hold paths and data: the log has it, the client gets its name.
        message = f"The model's code raised {type(error).__name__}; the server's log has the details."
    return frames.encode(Kind.ERROR, frame_id, 0, b"", report(error, message))
