"""The handwritten digits that ship inside scikit-learn, as the files of an image-classification job."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

# scikit-learn's pixels run from 0 to 16, a PNG's to 255.
FULL_PIXEL = 16.0
VALIDATION_SHARE = 0.2
SPLIT_SEED = 1797


@dataclass(frozen=True)
class Split:
    """The images of one channel: n x 8 x 8 uint8 pixels and their labels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_split() -> tuple[Split, Split]:
    """Return training and validation images, in the same random order every time."""
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / FULL_PIXEL)).astype(np.uint8)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(pixels))
    cut = round(len(order) * (1 - VALIDATION_SHARE))
    train, validation = order[:cut], order[cut:]
    return Split(pixels[train], digits.target[train]), Split(pixels[validation], digits.target[validation])


def write_channels(split: Split, images: Path, listing: Path) -> None:
    """Write one channel of PNG files and the channel that lists them: index, label and path, separated by tabs."""
    images.mkdir(parents=True)
    listing.mkdir(parents=True)
    lines = []
    for index, (pixels, label) in enumerate(zip(split.pixels, split.labels, strict=True)):
        name = f"{label}/{index:04}.png"
        (images / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(images / name)
        lines.append(f"{index}\t{label}\t{name}\n")
    (listing / f"{images.name}.lst").write_text("".join(lines), encoding="utf-8")
