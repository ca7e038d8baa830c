"""Pictures as arrays. Pillow is imported when the first picture comes."""

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BodyDecodeError

if TYPE_CHECKING:
    from PIL import Image

# A picture of 100 megapixels takes 300 MB as RGB; a few kilobytes of PNG can claim far more.
MAX_PIXELS = 100_000_000
MODES = {1: "L", 3: "RGB"}


def decode_image(body: bytes, content_type: str, channels: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture as channels x height x width values from 0 to 255, resized if it has another size.

    Raises `BodyDecodeError` for what is not a picture, is cut short, or is larger than it is worth.
    """
    return pixels_of(resized(decode_picture(body, content_type, channels), width, height))


def decode_picture(body: bytes, content_type: str, channels: int, *, least_side: int | None = None) -> "Image.Image":
    """Return a picture in grey or RGB. A JPEG may come smaller, with `least_side` pixels or more on its shorter side.

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
        if least_side is not None:
            scale = least_side / min(picture.size)
            picture.draft(MODES[channels], (round(picture.width * scale), round(picture.height * scale)))
        return picture.convert(MODES[channels])
    except UnidentifiedImageError as error:
        raise BodyDecodeError(content_type, "it is no picture in a format that is known here") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BodyDecodeError(content_type, f"the picture is damaged: {error}") from error


def resized(picture: "Image.Image", width: int, height: int) -> "Image.Image":
    """Return a picture in another size, without regard to its proportions."""
    from PIL import Image

    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)


def pixels_of(picture: "Image.Image") -> NDArray[np.uint8]:
    """Return a picture's pixels as channels x height x width."""
    pixels: NDArray[Any] = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
