"""Images a second through our loader against a bare loop over Pillow with as many processes, interleaved.

Both read the same JPEG files, decode them, cut a random part of a resized picture and mirror it. The bare loop keeps
nothing: it makes no batches, hands nothing to another process, names no file that is damaged.
"""

import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from mooring.contract.resources import usable_cpus
from mooring.training.data.image_files import listed_images
from mooring.training.data.image_labels import LabelForm
from mooring.training.data.images import LabelledImages, PictureReader, batches, collate
from mooring.training.programs.images.augmentation import Preparation, Varied
from mooring.training.sampler import DataPosition

IMAGES = 512
SIZES = ((500, 375), (375, 500))  # as ImageNet's are on average
BATCH = 32
RESIZE, CROP = 256, 224
ROUNDS = 5


def main() -> None:
    """Print both rates, and their ratio, for reading in this process and in one worker per CPU."""
    print(f"\nimage pipeline, {IMAGES} JPEG files, {ROUNDS} interleaved rounds after a first one, medians")
    with tempfile.TemporaryDirectory() as name:
        files = _write(Path(name))
        for workers in sorted({0, usable_cpus()}):
            ours, bares = _rates(Path(name), files, workers)
            ratio = statistics.median(our / bare for our, bare in zip(ours, bares, strict=True))
            where = f"{workers} workers" if workers else "this process"
            print(
                f"  {where:<13} bare loop {statistics.median(bares):7.0f} images/s"
                f"   loader {statistics.median(ours):7.0f} images/s   {ratio:5.2f} x"
            )


def _rates(folder: Path, files: list[Path], workers: int) -> tuple[list[float], list[float]]:
    source = listed_images(folder, folder, LabelForm(2))
    preparation = Preparation((3, CROP, CROP), RESIZE, "crop")
    position = DataPosition()
    images = LabelledImages(source, PictureReader(3, Varied(preparation, 0, position), preparation.fit.least_side))
    loader = DataLoader(images, BATCH, collate_fn=collate, num_workers=workers)
    ours, bares = [], []
    for _ in range(ROUNDS + 1):
        position.epoch += 1
        bares.append(_rate(lambda: _bare(files, workers)))
        ours.append(_rate(lambda: sum(len(batch.label) for batch in batches(loader))))
    return ours[1:], bares[1:]


def _rate(read: Callable[[], int]) -> float:
    started = time.perf_counter()
    count = read()
    assert count == IMAGES
    return count / (time.perf_counter() - started)


def _bare(files: list[Path], workers: int) -> int:
    """Read all files with Pillow and nothing else; returns how many there were."""
    if not workers:
        return _bare_loop(files)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_bare_loop, args=(files[start::workers],)) for start in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return len(files)


def _bare_loop(files: list[Path]) -> int:
    random = Random(os.getpid())
    for file in files:
        picture = Image.open(file).convert("RGB")
        scale = RESIZE / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = random.randint(0, picture.width - CROP), random.randint(0, picture.height - CROP)
        picture = picture.crop((left, top, left + CROP, top + CROP))
        if random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
    return len(files)


def _write(folder: Path) -> list[Path]:
    """Write smooth noise, which compresses about as photographs do, and a list of it."""
    random = np.random.default_rng(0)
    files, lines = [], []
    for index in range(IMAGES):
        coarse = Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize(SIZES[index % len(SIZES)], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(folder / f"{index:04}.jpg")
        files[-1].write_bytes(buffer.getvalue())
        lines.append(f"{index}\t{index % 2}\t{files[-1].name}\n")
    (folder / "images.lst").write_text("".join(lines), encoding="utf-8")
    return files


if __name__ == "__main__":
    main()
