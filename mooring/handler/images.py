"""Pictures as arrays. Pillow is imported when the first picture comes."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BodyDecodeError

if TYPE_CHECKING:
    from PIL import Image

# A picture of 100 megapixels takes 300 MB as RGB; a few kilobytes of PNG can claim far more.
MAX_PIXELS = 100_000_000
MODES = {1: "L", 3: "RGB"}
# A JPEG is decoded no smaller than this many times the size that it is resized to, so that resizing still averages.
DECODED_SCALE = 2
# What a model's own metadata say of how pictures are to come to its size.
FIT_KEY, SIDE_KEY = "mooring.picture_fit", "mooring.picture_shorter_side"
SCALE, CROP = "scale", "crop"


@dataclass(frozen=True)
class PictureFit:
    """How a picture comes to a model's size: scaled to it, or with its proportions kept, and the middle cut out.

    What is cut out of is the picture with its shorter side scaled to `shorter_side`, if that is given, and no smaller
    than the model's size. A model is to be given pictures as it was measured on them.
    """

    is_cropped: bool = False
    shorter_side: int | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "PictureFit":
        """Return what a model's metadata say; scaling if they say nothing. Raises `ValueError`."""
        fit, side = metadata.get(FIT_KEY, SCALE), metadata.get(SIDE_KEY)
        if fit not in (SCALE, CROP):
            raise ValueError(f'{FIT_KEY} is "{fit}"; expected {SCALE} or {CROP}')
        if side is not None and not (side.isdecimal() and 0 < int(side) <= MAX_PIXELS):
            raise ValueError(f'{SIDE_KEY} is "{side}"; expected a number of pixels')
        return cls(fit == CROP, None if side is None else int(side))

    def metadata(self) -> dict[str, str]:
        """Return what a model's metadata are to say."""
        side = {} if self.shorter_side is None else {SIDE_KEY: str(self.shorter_side)}
        return {FIT_KEY: CROP if self.is_cropped else SCALE, **side}

    @property
    def least_side(self) -> int | None:
        """How many pixels a picture's shorter side has to have when it comes, None for as many as it has."""
        return None if self.shorter_side is None else self.shorter_side * DECODED_SCALE

    def fitted(self, picture: "Image.Image", width: int, height: int) -> "Image.Image":
        """Return a picture in a model's size."""
        return self.part(picture, width, height) if self.is_cropped else resized(picture, width, height)

    def scaled_size(self, picture: "Image.Image", width: int, height: int) -> tuple[int, int]:
        """Return the size that a part is cut out of."""
        scale = 1.0 if self.shorter_side is None else self.shorter_side / min(picture.size)
        scale = max(scale, width / picture.width, height / picture.height)
        return max(width, round(picture.width * scale)), max(height, round(picture.height * scale))

    def part(self, picture: "Image.Image", width: int, height: int, x: float = 0.5, y: float = 0.5) -> "Image.Image":
        """Return the part at `x`, `y` (from 0 to 1, of the room there is) of the scaled picture."""
        from PIL import Image

        scaled = self.scaled_size(picture, width, height)
        left, top = round((scaled[0] - width) * x), round((scaled[1] - height) * y)
        if scaled == picture.size:
            return picture.crop((left, top, left + width, top + height))
        # Only what is kept is computed.
        across, down = picture.width / scaled[0], picture.height / scaled[1]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return picture.resize((width, height), Image.Resampling.BILINEAR, box=box)


SCALED = PictureFit()


def decode_image(body: bytes, content_type: str, shape: tuple[int, int, int], fit: PictureFit) -> NDArray[np.uint8]:
    """Return a picture as channels x height x width values from 0 to 255.

    Raises `BodyDecodeError` for what is not a picture, is cut short, or is larger than it is worth.
    """
    channels, height, width = shape
    picture = decode_picture(body, content_type, channels, least_side=fit.least_side)
    with _damage_named(content_type):
        return pixels_of(fit.fitted(picture, width, height))


def decode_picture(body: bytes, content_type: str, channels: int, *, least_side: int | None = None) -> "Image.Image":
    """Return a picture in grey or RGB. A JPEG may come smaller, with `least_side` pixels or more on its shorter side.

    Raises `BodyDecodeError` for what is not a picture, is cut short, or is larger than it is worth.
    """
    from PIL import Image

    with _damage_named(content_type):
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


@contextmanager
def _damage_named(content_type: str) -> Iterator[None]:
    """Turn whatever Pillow raises into `BodyDecodeError`: each of its formats raises what its parser happens to."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (BodyDecodeError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BodyDecodeError(content_type, "it is no picture in a format that is known here") from error
    except Exception as error:
        raise BodyDecodeError(content_type, f"the picture is damaged: {str(error) or type(error).__name__}") from error


def resized(picture: "Image.Image", width: int, height: int) -> "Image.Image":
    """Return a picture in another size, without regard to its proportions."""
    from PIL import Image

    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)


def pixels_of(picture: "Image.Image") -> NDArray[np.uint8]:
    """Return a picture's pixels as channels x height x width."""
    pixels: NDArray[Any] = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
