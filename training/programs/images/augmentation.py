"""How a picture becomes the network's input, and how training varies it, as SageMaker's built-in algorithm does.

What is random depends on seed, epoch and image alone: on no rank, worker or earlier run.
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mooring.handler.images import PictureFit, pixels_of, resized
from mooring.training.sampler import DataPosition

from .settings import AugmentationType, Settings

# The built-in's ranges. Hue counts to 180, saturation and lightness to 255.
HUE = 36
HUE_CIRCLE = 180
SATURATION = 50
LIGHTNESS = 50
DEGREES = 10
SHEAR = 0.1
ASPECT = 0.25
# What lies beyond a turned picture's edge.
GREY = 127


@dataclass(frozen=True)
class Preparation:
    """How pictures are brought to the network's size, and varied.

    With neither `resize` nor `augmentation` a picture is scaled to the size; with either, it keeps its proportions and
    is cropped: at random in training, in the middle otherwise. What is not varied is as serving has it.
    """

    image_shape: tuple[int, int, int]
    resize: int | None = None
    augmentation: AugmentationType | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Preparation":
        """Return what hyperparameters ask for."""
        return cls(settings.shape, settings.resize, settings.augmentation_type)

    @property
    def fit(self) -> PictureFit:
        """How a picture comes to the network's size where nothing is varied, in serving as well."""
        return PictureFit(self.resize is not None or self.augmentation is not None, self.resize)

    def __call__(self, picture: Image.Image, random: Random | None = None) -> NDArray[np.uint8]:
        """Return the pixels of a picture, varied if there is something random to vary it by."""
        _, height, width = self.image_shape
        if random is None or self.augmentation is None:
            return pixels_of(self.fit.fitted(picture, width, height))
        x, y, is_mirrored = random.random(), random.random(), random.random() < 0.5
        if self.augmentation == "crop_color_transform":
            picture = self._turned(picture, x, y, random)
        else:
            picture = self.fit.part(picture, width, height, x, y)
        if is_mirrored:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return pixels_of(picture) if self.augmentation == "crop" else recoloured(picture, random)

    def _turned(self, picture: Image.Image, x: float, y: float, random: Random) -> Image.Image:
        """Return the part at `x`, `y` of the scaled picture, which has been turned, sheared and stretched."""
        _, height, width = self.image_shape
        scaled = self.fit.scaled_size(picture, width, height)
        left, top = round((scaled[0] - width) * x), round((scaled[1] - height) * y)
        angle = math.radians(random.uniform(-DEGREES, DEGREES))
        matrix = _turning(angle, random.uniform(-SHEAR, SHEAR), 1 + random.uniform(-ASPECT, ASPECT))
        middle = np.array([scaled[0] / 2, scaled[1] / 2])
        # Pillow asks where in the source a pixel of the result comes from.
        back = np.linalg.inv(matrix)
        shift = middle + back @ (np.array([left, top]) - middle)
        coefficients = (*back[0], shift[0], *back[1], shift[1])
        grey = GREY if picture.mode == "L" else (GREY,) * 3
        return resized(picture, *scaled).transform(
            (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=grey
        )


@dataclass(frozen=True)
class Varied:
    """A preparation that varies each image in each epoch by itself."""

    preparation: Preparation
    seed: int
    position: DataPosition

    def __call__(self, picture: Image.Image, index: int) -> NDArray[np.uint8]:
        """Return the pixels of image `index` in the present epoch."""
        return self.preparation(picture, Random(f"{self.seed} {self.position.epoch} {index}"))


@dataclass(frozen=True)
class Plain:
    """A preparation that varies nothing, for images that are measured on."""

    preparation: Preparation

    def __call__(self, picture: Image.Image, index: int) -> NDArray[np.uint8]:
        """Return the pixels of a picture."""
        return self.preparation(picture)


def _turning(angle: float, shear: float, aspect: float) -> NDArray[np.float64]:
    """Return the matrix that turns, shears and stretches, and keeps the area."""
    cosine, sine = math.cos(angle), math.sin(angle)
    stretch = math.sqrt(aspect)
    turned = np.array([[cosine, -sine], [sine, cosine]])
    matrix: NDArray[np.float64] = turned @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([stretch, 1 / stretch])
    return matrix


def recoloured(picture: Image.Image, random: Random) -> NDArray[np.uint8]:
    """Return the pixels of a picture whose hue, saturation and lightness are moved, each by one random number."""
    hue = random.uniform(-HUE, HUE)
    saturation, lightness = random.uniform(-SATURATION, SATURATION), random.uniform(-LIGHTNESS, LIGHTNESS)
    if picture.mode == "L":  # grey has no hue, and is not to get one
        return (pixels_of(picture) + np.float32(lightness)).clip(0, 255).astype(np.uint8)
    return _moved(pixels_of(_hue_turned(picture, hue)), saturation, lightness)


def _hue_turned(picture: Image.Image, hue: float) -> Image.Image:
    """Turn the hue, which is the same in HSV, that Pillow knows, as in HSL."""
    shift = round(hue * 256 / HUE_CIRCLE)
    bands = list(picture.convert("HSV").split())
    bands[0] = bands[0].point([(value + shift) % 256 for value in range(256)])
    return Image.merge("HSV", bands).convert("RGB")


def _moved(pixels: NDArray[np.uint8], saturation: float, lightness: float) -> NDArray[np.uint8]:
    """Move saturation and lightness, as HSL has them.

    A colour is its lightness and what each channel has beyond it; the latter grows with the saturation, and with how
    much a lightness allows of it.
    """
    channels = pixels.astype(np.float32)
    highest, lowest = channels.max(0), channels.min(0)
    old, spread = (highest + lowest) / 2, highest - lowest
    allowed = np.maximum(127.5 - np.abs(old - 127.5), 0.5)  # half the spread of the purest colour of this lightness
    new = (old + np.float32(lightness)).clip(0, 255)
    purity = (spread / (2 * allowed) + np.float32(saturation / 255)).clip(0, 1)
    wanted = 2 * purity * (127.5 - np.abs(new - 127.5))
    growth = np.divide(wanted, spread, out=np.zeros_like(spread), where=spread > 0)
    moved: NDArray[np.uint8] = (new + (channels - old) * growth).round().clip(0, 255).astype(np.uint8)
    return moved
