"""Small pictures for tests, and channels of them in every form that a job may have."""

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mooring.artifact.recordio import write_record

SIZE = 8


def png(value: int) -> bytes:
    """Grey noise that depends on `value`: dark for even ones, light for odd ones."""
    noise = np.random.default_rng(value).integers(0, 100, (SIZE, SIZE), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise + np.uint8(150 * (value % 2))).save(buffer, "PNG")
    return buffer.getvalue()


def packed(labels: Sequence[float], picture: bytes, *, in_header: bool = True) -> bytes:
    """Return a record as MXNet's im2rec packs it; one label lies in its header, unless told otherwise."""
    if in_header and len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 1, 0) + picture
    return struct.pack("<IfQQ", len(labels), 0, 1, 0) + struct.pack(f"<{len(labels)}f", *labels) + picture


def write_files(folder: Path, count: int) -> None:
    """Write pictures 0.png, 1.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index}.png").write_bytes(png(index))


def write_listed(base: Path, name: str, count: int) -> None:
    """Write a channel of files, and the channel that lists them: even ones are of class 0, odd ones of class 1."""
    write_files(base / name, count)
    (base / f"{name}_lst").mkdir(exist_ok=True)
    lines = "".join(f"{index}\t{index % 2}\t{index}.png\n" for index in range(count))
    (base / f"{name}_lst/{name}.lst").write_text(lines, encoding="utf-8")


def write_recorded(base: Path, name: str, count: int, *, classes: int | None = None) -> None:
    """Write a channel with a .rec file. With `classes`, an image has each class whose number divides its own."""
    (base / name).mkdir(parents=True, exist_ok=True)
    with (base / name / f"{name}.rec").open("wb") as stream:
        for index in range(count):
            labels = [index % 2] if classes is None else [float(index % (each + 2) == 0) for each in range(classes)]
            write_record(stream, packed(labels, png(index)))


def write_by_folder(base: Path, name: str, count: int) -> None:
    """Write a channel with a folder for each class."""
    for index in range(count):
        folder = base / name / ("light" if index % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(png(index))


def write_manifest(base: Path, name: str, count: int) -> None:
    """Write a channel with files and an augmented manifest of them, as Ground Truth writes it."""
    write_files(base / name / "pictures", count)
    lines = [
        {
            "source-ref": f"s3://bucket/some/prefix/pictures/{index}.png",
            "class": str(index % 2),
            "class-metadata": {"class-name": ("dark", "light")[index % 2], "type": "groundtruth/image-classification"},
        }
        for index in range(count)
    ]
    (base / name / "output.manifest").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
