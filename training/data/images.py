"""Labelled images for a DataLoader: read from a source, decoded and prepared in its workers.

Pixels stay bytes until they are on the device: a quarter of what workers would otherwise hand over.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, default_collate

from mooring.contract.errors import UserCodeError
from mooring.handler.errors import BodyDecodeError
from mooring.handler.images import decode_picture

CONTENT_TYPE = "application/x-image"

# Makes image `index`, decoded, the channels x height x width pixels that a network takes.
Prepare = Callable[[Image.Image, int], NDArray[np.uint8]]


class ImageError(UserCodeError):
    """An image of a channel that cannot be used. `place` is its file, or its record in one."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        self.place = place
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{place}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str, str]]:
        """Tell pickle of the facts; it would make an error from its sentence."""
        return ImageError, (self.place, self.problem, self.remedy)


class ImageSource(Protocol):
    """Encoded images with their labels."""

    @property
    def labels(self) -> NDArray[Any]:
        """A class's number for each image; or for each image a 0 or 1 for each class."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What classes are called, in the order of their numbers."""

    def __len__(self) -> int:
        """Return how many images there are."""

    def read(self, index: int) -> bytes:
        """Return an image as it is encoded. Raises `OSError`, `ImageError`."""

    def error(self, index: int, problem: str) -> ImageError:
        """Return the error that names an image, and says what to do about it."""


class Sample(NamedTuple):
    """What a network learns from, or a batch of it."""

    pixels: Any
    label: Any


@dataclass(frozen=True)
class PictureReader:
    """Makes of an encoded picture what a network takes.

    A JPEG may come smaller, with `least_side` pixels or more on its shorter side.
    """

    channels: int
    prepare: Prepare
    least_side: int | None = None

    def pixels(self, body: bytes, index: int) -> torch.Tensor:
        """Return the pixels of image `index`. Raises `BodyDecodeError`."""
        picture = decode_picture(body, CONTENT_TYPE, self.channels, least_side=self.least_side)
        prepared = self.prepare(picture, index)
        return torch.from_numpy(np.require(prepared, requirements="W"))  # a view of a picture cannot be written to


class LabelledImages(Dataset[Sample | ImageError]):
    """The images of a source. One that cannot be used is an error among the samples, for `batches` to raise."""

    def __init__(self, source: ImageSource, reader: PictureReader) -> None:
        self.source = source
        self.reader = reader

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | ImageError:
        try:
            pixels = self.reader.pixels(self.source.read(index), index)
        except BodyDecodeError as error:
            return self.source.error(index, error.problem)
        except OSError as error:
            return self.source.error(index, f"it cannot be read: {error.strerror}")
        except ImageError as error:
            return error
        return Sample(pixels, self.source.labels[index])


def collate(samples: list[Sample | ImageError]) -> Sample | ImageError:
    """Return samples as one batch, or the first of them that is an error. For a DataLoader's `collate_fn`."""
    errors = [sample for sample in samples if isinstance(sample, ImageError)]
    if errors:
        return errors[0]
    batch: Sample = default_collate(samples)
    return batch


def batches(loader: Iterable[Sample | ImageError]) -> Iterator[Sample]:
    """Yield a loader's batches. Raises the `ImageError` of an image that cannot be used, with its own message.

    An error that rises in a worker would arrive as a text that begins with the worker and its traceback.
    """
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        yield batch
