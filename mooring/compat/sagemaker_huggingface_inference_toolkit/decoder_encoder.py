"""Bodies as the `inputs` of a pipeline, and its predictions as bodies."""

import base64
import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from sagemaker_inference import decoder, errors  # type: ignore[import-not-found]

from . import content_types

# A CSV body has to name its columns, and one of them has to be among these.
HEADINGS = ("question", "context", "inputs")


def decode_json(content: str | bytes) -> Any:
    """Return what a JSON body says."""
    return json.loads(content)


def decode_csv(string_like: str | bytes) -> dict[str, Any]:
    """Return a table with named columns as inputs. Raises `UnreadableBodyError` for one without names."""
    text = string_like if isinstance(string_like, str) else string_like.decode("utf-8")
    first = text.partition("\n")[0].lower()
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not any(heading in first for heading in HEADINGS):
        problem = f"its first line has to name the columns, among them one of {', '.join(HEADINGS)}, and rows follow"
        raise errors.UnreadableBodyError(content_types.CSV, problem)
    return {"inputs": [row["inputs"] for row in rows] if "inputs" in rows[0] else rows}


def decode_image(bpayload: bytes | bytearray) -> dict[str, Any]:
    """Return a picture as inputs."""
    from PIL import Image

    return {"inputs": Image.open(io.BytesIO(bpayload)).convert("RGB")}


def decode_audio(bpayload: bytes | bytearray) -> dict[str, Any]:
    """Return a sound as inputs; a pipeline decodes it."""
    return {"inputs": bytes(bpayload)}


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "save"):  # a picture
        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return base64.b64encode(stream.getvalue()).decode()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def encode_json(content: Any, accept_type: str | None = None) -> str:  # noqa: ARG001 - as the toolkit's
    """Return a value as compact JSON; NaN and infinities, which JSON cannot say, raise `ValueError`."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, default=_plain, separators=(",", ":"))


def encode_csv(content: Any, accept_type: str | None = None) -> str:  # noqa: ARG001 - as the toolkit's
    """Return a list of objects as a table."""
    rows = content if isinstance(content, list) else list(content)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def encode_image(image: Any, accept_type: str = content_types.PNG) -> bytes:
    """Return a picture as a file of a type; as PNG where any will do."""
    kind = "PNG" if accept_type == content_types.X_IMAGE else accept_type.rpartition("/")[2].upper()
    stream = io.BytesIO()
    image.save(stream, format=kind)
    return stream.getvalue()


def _encode_npy(array_like: Any, _: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array_like, allow_pickle=False)
    return stream.getvalue()


def _decode_npy(body: bytes) -> Any:
    return decoder.decode(body, content_types.NPY)


_decoder_map: dict[str, Callable[[Any], Any]] = {
    content_types.NPY: _decode_npy,
    content_types.CSV: decode_csv,
    content_types.JSON: decode_json,
    **dict.fromkeys(content_types.VISION_TYPES, decode_image),
    **dict.fromkeys(content_types.AUDIO_TYPES, decode_audio),
}
_encoder_map: dict[str, Callable[..., Any]] = {
    content_types.NPY: _encode_npy,
    content_types.CSV: encode_csv,
    content_types.JSON: encode_json,
    **dict.fromkeys(content_types.VISION_TYPES, encode_image),
}


def decode(content: Any, content_type: str = content_types.JSON) -> Any:
    """Return a body as a pipeline takes it. Raises `UnsupportedFormatError`, `UnreadableBodyError`."""
    name = (content_type or "").partition(";")[0].strip().lower()
    if name not in _decoder_map:
        raise errors.UnsupportedFormatError(content_type)
    try:
        return _decoder_map[name](content)
    except (ValueError, OSError) as error:  # Pillow's are OSErrors
        if isinstance(error, errors.UnreadableBodyError):
            raise
        raise errors.UnreadableBodyError(name, str(error)) from error


def encode(content: Any, accept_type: str = content_types.JSON) -> Any:
    """Return a prediction as a body. Raises `UnsupportedFormatError`."""
    name = (accept_type or "").partition(";")[0].strip().lower()
    if name not in _encoder_map:
        raise errors.UnsupportedFormatError(accept_type)
    return _encoder_map[name](content, name)
