"""Forms as fields by name: multipart/form-data and application/x-www-form-urlencoded, within limits.

One pass over the body per boundary, whatever it holds: what looks like a boundary costs no more than other bytes.
Of several fields with one name the last counts.
"""

from itertools import takewhile
from urllib.parse import parse_qsl

from .errors import BodyDecodeError
from .media_types import FORM, MULTIPART, MediaType, parse

MOST_PARTS = 100
MOST_HEADER_BYTES = 8192
# RFC 2046 allows 70 characters.
MOST_BOUNDARY_BYTES = 70
# What follows the last boundary.
END = b"--"


def decode_multipart(body: bytes, media_type: MediaType) -> dict[str, str | bytes]:
    """Return the parts of a form: text where a part is text, bytes where it is a file. Raises `BodyDecodeError`."""
    boundary = media_type.parameters.get("boundary", "").encode("latin-1", "replace")
    if not 0 < len(boundary) <= MOST_BOUNDARY_BYTES:
        raise BodyDecodeError(MULTIPART, f"its boundary has to be 1 to {MOST_BOUNDARY_BYTES} characters long")
    # A boundary begins a line; the first one may begin the body.
    _, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, MOST_PARTS + 2)
    parts = list(takewhile(lambda piece: not piece.startswith(END), pieces))
    if len(parts) > MOST_PARTS:
        raise BodyDecodeError(MULTIPART, f"it has more than {MOST_PARTS} parts")
    if len(parts) == len(pieces):
        raise BodyDecodeError(MULTIPART, "it does not end with its boundary")
    return dict(_field(part) for part in parts)


def _field(part: bytes) -> tuple[str, str | bytes]:
    # Spaces may follow a boundary on its line.
    head, separator, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not separator or len(head) > MOST_HEADER_BYTES:
        raise BodyDecodeError(MULTIPART, f"a part has no end of its headers in {MOST_HEADER_BYTES} bytes")
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    disposition = parse(headers.get("content-disposition", ""))
    name = disposition.parameters.get("name", "")
    if disposition.name != "form-data" or not name:
        raise BodyDecodeError(MULTIPART, 'a part has no Content-Disposition: form-data; name="…"')
    media_type = parse(headers.get("content-type", "text/plain"))
    if "filename" in disposition.parameters or not media_type.name.startswith("text/"):
        return name, content
    try:
        return name, media_type.text(content)
    except ValueError as error:
        raise BodyDecodeError(MULTIPART, f"field '{name}': {error}") from error


def decode_form(body: bytes, _: MediaType) -> dict[str, str]:
    """Return the fields of a URL-encoded form. Raises `BodyDecodeError`."""
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_PARTS))
    except ValueError as error:
        raise BodyDecodeError(FORM, str(error)) from error
