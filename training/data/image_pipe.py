"""Labelled images from a pipe: records as im2rec packs them, or pictures and labels in turn, of an augmented manifest.

A pipe has one reader, so its pictures are decoded in threads of the process that trains, a batch ahead of it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from mooring.contract.channels import Channel, RecordWrapper
from mooring.handler.errors import BodyDecodeError
from mooring.handler.media_types import parse

from .batches import Batches
from .formats import RECORD_IO, Format, Records
from .image_channels import ImageChannelError
from .image_files import label_numbers
from .image_labels import LabelError, LabelForm
from .image_records import REMEDY, RecordedLabelError, labels_of, picture_of
from .images import ImageError, PictureReader, Sample, collate
from .manifests import Augmented
from .samples import Raw, SampleError

# Batches whose pictures are decoded while another is trained on.
AHEAD = 1
# What the platform sends of an augmented manifest; what AttributeNames calls them it does not tell.
PICTURE, LABEL = "picture-ref", "label"
ATTRIBUTES = Augmented(PICTURE, LABEL)
ORDER = "AttributeNames has to name the image first, then its label, and nothing else"


@dataclass(frozen=True)
class Packing:
    """How images are packed in a pipe: a format whose samples stay whole until `parts` takes them apart."""

    whole: Format
    parts: Callable[[Raw], tuple[bytes, list[float]]]  # an encoded picture and its labels; raises `LabelError`
    unit: str  # what a sample is called
    remedy: str

    def cut(self, stream: BinaryIO, name: str) -> Iterator[Raw]:
        """Yield the samples of a stream."""
        return self.whole.cut(stream, name)

    def parse(self, raw: Raw) -> Raw:
        """Return a sample as it is."""
        return raw


def _of_manifest(raw: Raw) -> tuple[bytes, list[float]]:
    try:
        attributes = ATTRIBUTES.parse(raw)
    except SampleError as error:
        raise LabelError(f"its label is no text; {ORDER}") from error
    return attributes[PICTURE], label_numbers(attributes[LABEL])


IM2REC = Packing(Records(), lambda raw: (picture_of(raw.content), labels_of(raw.content)), "record", REMEDY)
MANIFEST = Packing(
    ATTRIBUTES,
    _of_manifest,
    "sample",
    f"Replace the image, or take its line out of the manifest; {ORDER}.",
)


def packing_of(channel: Channel) -> Packing:
    """Return how the images of a pipe are packed. Raises `ImageChannelError`."""
    if channel.record_wrapper is RecordWrapper.RECORD_IO:
        return MANIFEST
    if parse(channel.content_type or RECORD_IO).name == RECORD_IO:
        return IM2REC
    problem = (
        f'comes in Pipe mode with the content type "{channel.content_type}" and no RecordIO around its objects, so '
        f"nothing tells where an image ends; expected {RECORD_IO} for .rec files, or the RecordWrapperType RecordIO "
        "for an augmented manifest"
    )
    raise ImageChannelError(channel.name, problem)


@dataclass(frozen=True)
class SampleReader:
    """Makes of a pipe's samples what a network learns from."""

    packing: Packing
    form: LabelForm
    pictures: PictureReader

    def __call__(self, raw: Raw) -> Sample:
        """Return a sample with its picture decoded. Raises `RecordedLabelError`, `ImageError`, `SampleError`."""
        try:
            body, numbers = self.packing.parts(raw)
            label = self.form.read(numbers)
        except LabelError as error:
            raise RecordedLabelError(raw.file, raw.number, str(error), self.packing.unit) from error
        try:
            return Sample(self.pictures.pixels(body, raw.number), label)
        except BodyDecodeError as error:
            place = f"{raw.file}, {self.packing.unit} {raw.number}"
            raise ImageError(place, error.problem, self.packing.remedy) from error


class PipedImages:
    """This rank's share of a pipe's batches, those of the next pass at each iteration.

    Raises what `SampleReader` does, and what reading a pipe does.
    """

    def __init__(self, batches: Batches, read: SampleReader, threads: int) -> None:
        self._batches = batches
        self._read = read
        self._threads = threads
        self._ahead: deque[list[Future[Sample]]] = deque()

    def __iter__(self) -> Iterator[Sample]:
        self._ahead.clear()
        with closing(iter(self._batches)) as batches, ThreadPoolExecutor(self._threads, "decoding") as threads:
            for raws in batches:
                self._ahead.append([threads.submit(self._read, raw) for raw in raws])
                if len(self._ahead) > AHEAD:
                    yield self._next()
            while self._ahead:
                yield self._next()

    def _next(self) -> Sample:
        batch = collate([sample.result() for sample in self._ahead.popleft()])
        assert isinstance(batch, Sample)
        return batch

    @property
    def is_exhausted(self) -> bool:
        """Whether the pass came to its end: it was neither left before, nor ended by a stop."""
        return self._batches.is_exhausted and not self._ahead
