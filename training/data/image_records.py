"""Images in .rec files, as MXNet's im2rec packs them: records of a header, labels and an encoded picture."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mooring.artifact.recordio import (
    HEAD,
    LENGTH_BITS,
    MOST_FRAME_BYTES,
    WHOLE,
    DamagedRecordError,
    read_records,
    record_offsets,
)
from mooring.contract.errors import UserCodeError

from .image_labels import LabelError, LabelForm
from .images import ImageError

RECORD_PATTERN = "*.rec"
# How many labels lie behind the header (0: the one in it), label, and the image's id in two parts.
HEADER = struct.Struct("<IfQQ")
REMEDY = "Pack the images again, without this one if its original is damaged, too."


class RecordedLabelError(UserCodeError):
    """A record whose label cannot be used."""

    def __init__(self, file: Path | str, record: int, problem: str, unit: str = "record") -> None:
        self.file = str(file)
        self.record = record
        super().__init__(f"{file}, {unit} {record}: {problem}.")


@dataclass(frozen=True)
class ImageRecords:
    """Images that are records. `places` has each one's file and where in it the record begins."""

    files: tuple[Path, ...]
    places: NDArray[np.int64]
    labels: NDArray[Any]
    class_names: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, form: LabelForm) -> "ImageRecords":
        """Find the records of a folder's .rec files, and read their labels.

        Raises `RecordedLabelError`, `DamagedRecordError`, `ImageError` if there are no records.
        """
        files = tuple(sorted(folder.glob(RECORD_PATTERN)))
        places, labels = [], []
        for number, file in enumerate(files):
            offsets = record_offsets(file)
            places += [(number, offset) for offset in offsets]
            labels += _labels(file, offsets, form)
        if not places:
            held = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) if folder.is_dir() else ""
            raise ImageError(str(folder), f"holds no .rec file with records, but: {held or 'nothing'}", REMEDY)
        return cls(files, np.array(places, np.int64), form.together(labels), form.names())

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes:
        """Return a record's picture. Raises `ImageError` for a record that has changed or is damaged."""
        number, offset = (int(place) for place in self.places[index])
        try:
            with self.files[number].open("rb") as stream:
                return picture_of(_record(stream, offset))
        except DamagedRecordError as error:
            raise self.error(index, error.problem) from error
        except LabelError as error:
            raise self.error(index, str(error)) from error

    def error(self, index: int, problem: str) -> ImageError:
        """Return the error that names a record."""
        number, offset = (int(place) for place in self.places[index])
        before = int((self.places[:index, 0] == number).sum())
        return ImageError(f"{self.files[number]}, record {before + 1} at byte {offset:,}", problem, REMEDY)


def labels_of(record: bytes) -> list[float]:
    """Return the labels in a record. Raises `LabelError`."""
    if len(record) < HEADER.size:
        raise LabelError(f"has {len(record)} bytes, which is less than a header; it was not packed by im2rec")
    count, label, _, _ = HEADER.unpack_from(record)
    if count == 0:
        return [label]
    if len(record) < HEADER.size + 4 * count:
        raise LabelError(f"says that it has {count:,} labels, more than there is room for; it was not packed by im2rec")
    return [float(number) for number in np.frombuffer(record, "<f4", count, HEADER.size)]


def picture_of(record: bytes) -> bytes:
    """Return the encoded picture in a record. Raises `LabelError` for a record that im2rec did not pack."""
    labels_of(record)
    (count,) = struct.unpack_from("<I", record)
    return record[HEADER.size + 4 * count :]


def _labels(file: Path, offsets: Sequence[int], form: LabelForm) -> list[Any]:
    labels = []
    with file.open("rb") as stream:
        for number, offset in enumerate(offsets, start=1):
            try:
                labels.append(form.read(_labels_at(stream, offset)))
            except LabelError as error:
                raise RecordedLabelError(file, number, str(error)) from error
    return labels


def _labels_at(stream: BinaryIO, offset: int) -> list[float]:
    """Return the labels of a record without reading its picture, unless it was cut in parts."""
    stream.seek(offset)
    _, word = HEAD.unpack(stream.read(HEAD.size))
    flag, length = word >> LENGTH_BITS, word & MOST_FRAME_BYTES
    if flag != WHOLE or length < HEADER.size:
        return labels_of(_record(stream, offset))
    beginning = stream.read(HEADER.size)
    (count,) = struct.unpack_from("<I", beginning)
    return labels_of(beginning + stream.read(min(4 * count, length - HEADER.size)))


def _record(stream: BinaryIO, offset: int) -> bytes:
    stream.seek(offset)
    for record in read_records(stream, offset=offset):
        return record
    raise LabelError("is no longer there: the file has become shorter")
