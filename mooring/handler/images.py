"""Pictures as arrays. Pillow is imported when the first picture comes."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BodyDecodeError

# A picture of 100 megapixels takes 300 MB as RGB; a few kilobytes of PNG can claim far more.
MAX_PIXELS = 100_000_000
MODES = {1: "L", 3: "RGB"}


def decode_image(body: bytes, content_type: str, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture as channels x height x width values from 0 to 255, resized if it has another size.

    Raises `BodyDecodeError` for what is not a picture, is cut short, or is larger than it is worth.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            picture: Image.Image = Image.open(io.BytesIO(body))
        if picture.width * picture.height > MAX_PIXELS:
            problem = f"the picture is {picture.width} x {picture.height}, over the limit of {MAX_PIXELS:,} pixels"
            raise BodyDecodeError(content_type, problem)
        picture = picture.convert(MODES[channels])
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        raise BodyDecodeError(content_type, "it is no picture in a format that is known here") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BodyDecodeError(content_type, f"the picture is damaged: {error}") from error
    pixels: NDArray[Any] = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
