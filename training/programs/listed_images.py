"""The images of a channel and the channel that lists them, as SageMaker's image-classification algorithm has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from mooring.contract.channels import Channel, require_channel
from mooring.contract.errors import UserCodeError
from mooring.handler.errors import BodyDecodeError
from mooring.handler.images import decode_image


class ListingError(UserCodeError):
    """A line of a .lst file that cannot be used."""

    def __init__(self, file: Path, line: int, problem: str) -> None:
        self.file = file
        self.line = line
        super().__init__(f"{file}, line {line}: {problem}")


class TrainingImageError(UserCodeError):
    """An image of a channel that cannot be read."""

    def __init__(self, file: Path, problem: str) -> None:
        self.file = file
        super().__init__(f"{file}: {problem}. Replace the file, or take its line out of the .lst file.")


@dataclass(frozen=True)
class ListedImage:
    """One line of a listing."""

    file: Path
    label: int


class ListedImages(Dataset[tuple[torch.Tensor, int]]):
    """Images as C x H x W float pixels from 0 to 255, with their labels."""

    def __init__(self, images: list[ListedImage], image_shape: tuple[int, int, int]) -> None:
        self.images = images
        self.image_shape = image_shape

    @classmethod
    def open(
        cls, channels: Mapping[str, Channel], name: str, image_shape: tuple[int, int, int], classes: int
    ) -> "ListedImages":
        """Read the listing of channel `name` from channel `name`_lst: index, label and path, separated by tabs.

        Raises `MissingChannelError`, or `ListingError` naming file and line.
        """
        folder = require_channel(channels, name).path
        listings = require_channel(channels, f"{name}_lst").path
        images = [
            _listed(file, number, line, folder, classes)
            for file in sorted(listings.glob("*.lst"))
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
            if line.strip()
        ]
        if not images:
            raise ListingError(listings, 1, "there is no .lst file with images here")
        return cls(images, image_shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        listed = self.images[index]
        try:
            pixels = decode_image(listed.file.read_bytes(), "application/x-image", *self.image_shape)
        except BodyDecodeError as error:
            raise TrainingImageError(listed.file, error.problem) from error
        return torch.from_numpy(pixels.copy()).float(), listed.label


def _listed(file: Path, number: int, line: str, folder: Path, classes: int) -> ListedImage:
    fields = line.split("\t")
    if len(fields) != 3:
        raise ListingError(file, number, f"has {len(fields)} fields; expected index, label and path, separated by tabs")
    _, label, path = (field.strip() for field in fields)
    try:
        number_of_class = int(float(label))  # the built-in's tool writes labels as 3.000000
    except ValueError as error:
        raise ListingError(file, number, f'label "{label}" is not a number') from error
    if not 0 <= number_of_class < classes:
        raise ListingError(file, number, f"label {label} is not below num_classes, which is {classes}")
    if not (folder / path).is_file():
        raise ListingError(file, number, f"there is no image {folder / path}")
    return ListedImage(folder / path, number_of_class)
