"""Images that come through pipes: both ways of packing them, and what is said of those that cannot be used."""

import io
from pathlib import Path
from pipes import describe_pipes, framed, written
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import packed, png
from PIL import Image

from mooring.contract.channels import Channel, InputMode, RecordWrapper
from mooring.handler.images import pixels_of
from mooring.training import DataPosition, channel
from mooring.training.data import passes
from mooring.training.data.image_channels import ImageChannelError
from mooring.training.data.image_labels import LabelForm
from mooring.training.data.image_pipe import IM2REC, MANIFEST, Packing, PipedImages, SampleReader, packing_of
from mooring.training.data.image_records import RecordedLabelError
from mooring.training.data.images import ImageError, PictureReader
from mooring.training.data.samples import Raw

COUNT = 10
RECORDS = framed(*(packed([index % 2], png(index)) for index in range(COUNT)))
IN_TURN = framed(*(part for index in range(COUNT) for part in (png(index), b"%d" % (index % 2))))


def pixels(picture: Image.Image, index: int) -> NDArray[np.uint8]:
    return pixels_of(picture)


def reader(packing: Packing, form: LabelForm | None = None) -> SampleReader:
    return SampleReader(packing, form or LabelForm(2), PictureReader(1, pixels))


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setattr(passes, "_next_numbers", {})
    return tmp_path


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("wrapper", "content"), [("None", RECORDS), ("RecordIO", IN_TURN)])
def test_images_and_labels_come_in_the_order_of_the_pipe(
    base: Path, wrapper: str, content: bytes, threads: int
) -> None:
    describe_pipes(base, train={"ContentType": "application/x-recordio", "RecordWrapperType": wrapper})
    train = channel("train")
    packing = packing_of(train.description)
    images = PipedImages(train.batches(4, DataPosition(), packing, collate=list), reader(packing), threads)
    with written(base, train=content):
        for _ in range(2):
            first, second = images
            assert images.is_exhausted
            found = np.concatenate([first.pixels.numpy(), second.pixels.numpy()])[:, 0]
            assert np.array_equal(found, [np.asarray(Image.open(io.BytesIO(png(index)))) for index in range(8)])
            assert [*first.label.tolist(), *second.label.tolist()] == [0, 1] * 4


def test_pass_that_is_left_before_its_end_is_not_exhausted(base: Path) -> None:
    """Though all of it has been read ahead."""
    describe_pipes(base, train={})
    batches = channel("train").batches(5, DataPosition(), IM2REC, collate=list)
    images = PipedImages(batches, reader(IM2REC), 1)
    with written(base, train=RECORDS):
        for _ in images:
            break
        assert not images.is_exhausted
        assert len(list(images)) == 2
        assert images.is_exhausted


def test_labels_may_be_several(base: Path) -> None:
    form = LabelForm(3, is_multi=True)
    read = reader(IM2REC, form)
    assert read(Raw(packed([1, 0, 1], png(1)), "train_0", 1)).label.tolist() == [1, 0, 1]
    listed = reader(MANIFEST, LabelForm(3, is_multi=True, lists_classes=True))
    assert listed(Raw(framed(png(1), b"[0, 2]"), "train_0", 1)).label.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("packing", "content", "kind", "sentence"),
    [
        (IM2REC, packed([5], png(0)), RecordedLabelError, "train_0, record 7: label 5 is not below num_classes"),
        (IM2REC, b"short", RecordedLabelError, "train_0, record 7: has 5 bytes, which is less than a header"),
        (IM2REC, packed([1], png(0)[:60]), ImageError, "train_0, record 7: the picture is damaged.*Pack the images"),
        (IM2REC, packed([1], b"text"), ImageError, "train_0, record 7: it is no picture in a format"),
        (MANIFEST, framed(png(0), b"cat"), RecordedLabelError, 'train_0, sample 7: label "cat" is no number'),
        (MANIFEST, framed(b"1", png(0)), RecordedLabelError, "sample 7: its label is no text; AttributeNames has to"),
        (MANIFEST, framed(b"text", b"1"), ImageError, "sample 7: it is no picture .* out of the manifest"),
    ],
)
def test_sample_that_cannot_be_used_is_named(
    packing: Packing, content: bytes, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        reader(packing)(Raw(content, "train_0", 7))


def test_error_of_a_thread_arrives_as_it_is(base: Path) -> None:
    describe_pipes(base, train={})
    images = PipedImages(channel("train").batches(2, DataPosition(), IM2REC, collate=list), reader(IM2REC), 2)
    broken: Any = framed(packed([0], png(0)), packed([1], png(1)), packed([0], b"no picture"), packed([1], png(1)))
    with written(base, train=broken), pytest.raises(ImageError, match="train_0, record 3: it is no picture"):
        list(images)


def test_pipe_whose_images_have_no_ends_is_refused() -> None:
    described = Channel("train", Path("train"), InputMode.PIPE, "application/x-image")
    with pytest.raises(ImageChannelError, match='"application/x-image" and no RecordIO around its objects'):
        packing_of(described)
    assert packing_of(
        Channel("train", Path("train"), InputMode.PIPE, "image/png", record_wrapper=RecordWrapper.RECORD_IO)
    )
