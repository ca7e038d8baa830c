"""Forms put together again: multi-model-server takes them apart, but a handler is given bodies."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mooring.handler.media_types import FORM, MULTIPART, MediaType

# As browsers write what would end a field's name.
QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def body_of(element: Mapping[str, Any], headers: Mapping[str, Any], media_type: MediaType) -> bytes:
    """Return the body of a request as its client sent it, of a form one that says the same.

    `headers` holds a mapping for every part, under the name that the part has in `element`.
    """
    if media_type.name == FORM:
        return urlencode({name: bytes(value) for name, value in element.items()}).encode()
    if media_type.name == MULTIPART:
        boundary = media_type.parameters.get("boundary", "").encode("latin-1", "replace")
        parts = (_part(name, bytes(value), headers.get(name)) for name, value in element.items())
        return b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary
    return bytes(element.get("body", b""))


def _part(name: str, value: bytes, headers: Mapping[str, str] | None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name.translate(QUOTED)}"\r\n'
    if headers and headers.get("content-type"):
        head += f"Content-Type: {headers['content-type']}\r\n"
    return head.encode() + b"\r\n" + value
