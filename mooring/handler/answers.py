"""What a user's handler returned, as bytes: text, bytes, tensors and values to encode."""

from typing import Any

from . import codecs


def to_bytes(body: Any) -> bytes:
    """Return a body as bytes; what is neither text nor bytes becomes JSON."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return codecs.encode_json(plain(body))


def plain(value: Any) -> Any:
    """Return a tensor as an array; other values as they are."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().numpy()
    return value
