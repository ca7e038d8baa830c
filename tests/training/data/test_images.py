"""Labelled images: read from every form of channel, and what is said of those that cannot be."""

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import packed, png, write_by_folder, write_files, write_listed, write_manifest, write_recorded
from PIL import Image
from torch.utils.data import DataLoader

from mooring.artifact.recordio import DamagedRecordError, write_record
from mooring.contract.channels import Channel, InputMode
from mooring.contract.errors import MissingChannelError
from mooring.handler.images import pixels_of
from mooring.training.data.image_channels import ImageChannelError, open_images
from mooring.training.data.image_files import ImageListError
from mooring.training.data.image_labels import LabelForm
from mooring.training.data.image_records import ImageRecords, RecordedLabelError
from mooring.training.data.images import ImageError, ImageSource, LabelledImages, PictureReader, batches, collate

COUNT = 6
TWO = LabelForm(2)


def channels_of(base: Path, content_type: str | None = None) -> dict[str, Channel]:
    return {folder.name: Channel(folder.name, folder, content_type=content_type) for folder in base.iterdir()}


def pixels(picture: Image.Image, index: int) -> NDArray[np.uint8]:
    return pixels_of(picture)


def labelled(source: ImageSource) -> LabelledImages:
    return LabelledImages(source, PictureReader(1, pixels))


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_listed, write_recorded, write_by_folder, write_manifest])
def test_images_and_labels_are_read_from_every_form(tmp_path: Path, write: Callable[[Path, str, int], None]) -> None:
    write(tmp_path, "train", COUNT)
    source = open_images(channels_of(tmp_path), "train", TWO)
    found = {source.read(index): int(source.labels[index]) for index in range(len(source))}
    assert found == {png(index): index % 2 for index in range(COUNT)}


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (write_listed, ("0", "1")),
        (write_recorded, ("0", "1")),
        (write_by_folder, ("dark", "light")),
        (write_manifest, ("dark", "light")),
    ],
)
def test_classes_have_the_names_that_the_data_gives(tmp_path: Path, write: Any, names: tuple[str, ...]) -> None:
    write(tmp_path, "train", COUNT)
    assert open_images(channels_of(tmp_path), "train", TWO).class_names == names


def test_content_type_decides_where_a_folder_holds_several_forms(tmp_path: Path) -> None:
    write_recorded(tmp_path, "train", COUNT)
    write_by_folder(tmp_path, "train", COUNT + 2)
    assert len(open_images(channels_of(tmp_path, "application/x-recordio"), "train", TWO)) == COUNT
    write_listed(tmp_path, "train", COUNT + 4)
    assert len(open_images(channels_of(tmp_path, "application/x-recordio"), "train", TWO)) == COUNT
    assert len(open_images(channels_of(tmp_path, "application/x-image"), "train", TWO)) == COUNT + 4


def test_label_may_lie_behind_a_records_header(tmp_path: Path) -> None:
    with (tmp_path / "a.rec").open("wb") as stream:
        write_record(stream, packed([1], png(0), in_header=False))
    records = ImageRecords.open(tmp_path, TWO)
    assert (records.labels.tolist(), records.read(0)) == ([1], png(0))


def test_record_that_holds_recordios_own_mark_is_whole(tmp_path: Path) -> None:
    """Such a record is cut in parts, so that its labels are not simply the bytes that follow."""
    picture = png(1) + b"\x0a\x23\xd7\xce" * 3
    with (tmp_path / "a.rec").open("wb") as stream:
        write_record(stream, packed([0, 1], picture))
        write_record(stream, packed([1, 1], png(2)))
    records = ImageRecords.open(tmp_path, LabelForm(2, is_multi=True))
    assert records.labels.tolist() == [[0, 1], [1, 1]]
    assert [records.read(index) for index in range(2)] == [picture, png(2)]


def test_several_labels_are_a_number_for_each_class(tmp_path: Path) -> None:
    write_recorded(tmp_path, "train", 7, classes=3)
    source = open_images(channels_of(tmp_path), "train", LabelForm(3, is_multi=True))
    assert source.labels.dtype == np.float32
    assert source.labels[6].tolist() == [1, 1, 0]
    write_files(tmp_path / "val", 1)
    (tmp_path / "val_lst").mkdir()
    (tmp_path / "val_lst/a.lst").write_text("0\t0\t1\t1\t0.png\n", encoding="utf-8")
    assert open_images(channels_of(tmp_path), "val", LabelForm(3, is_multi=True)).labels.tolist() == [[0, 1, 1]]


def test_content_type_says_that_labels_are_the_numbers_of_classes(tmp_path: Path) -> None:
    write_files(tmp_path / "train", 2)
    lines = [{"image-ref": f"s3://b/{index}.png", "class": [0, 2][index:]} for index in range(2)]
    (tmp_path / "train/a.manifest").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    channels = channels_of(tmp_path, "application/x-image; label-format=class-id")
    source = open_images(channels, "train", LabelForm(3, is_multi=True))
    assert source.labels.tolist() == [[1, 0, 1], [0, 0, 1]]
    with pytest.raises(ImageChannelError, match="expected multi-hot or class-id"):
        open_images(channels_of(tmp_path, "x/y; label-format=names"), "train", TWO)


def test_file_of_a_manifest_is_found_by_the_end_of_its_key(tmp_path: Path) -> None:
    write_files(tmp_path / "train/b", 1)
    write_files(tmp_path / "train/a/b", 2)
    (tmp_path / "train/m.jsonl").write_text('{"source-ref": "s3://x/y/a/b/0.png", "label": 1}\n', encoding="utf-8")
    (tmp_path / "train/a/b/0.png").write_bytes(png(9))
    assert open_images(channels_of(tmp_path), "train", TWO).read(0) == png(9)


def test_validation_has_the_classes_of_training(tmp_path: Path) -> None:
    write_by_folder(tmp_path, "train", COUNT)
    write_by_folder(tmp_path, "validation", 2)
    (tmp_path / "validation/dark/0.png").unlink()
    names = open_images(channels_of(tmp_path), "train", TWO).class_names
    assert open_images(channels_of(tmp_path), "validation", TWO, names).labels.tolist() == [1]
    (tmp_path / "validation/grey").mkdir()
    with pytest.raises(ImageListError, match="a folder grey, a class that no training image has"):
        open_images(channels_of(tmp_path), "validation", TWO, names)


def test_labels_may_be_written_as_the_built_ins_tool_writes_them(tmp_path: Path) -> None:
    write_listed(tmp_path, "train", COUNT)
    (tmp_path / "train_lst/train.lst").write_text("0\t1.000000\t3.png\n\n", encoding="utf-8")
    assert open_images(channels_of(tmp_path), "train", TWO).labels.tolist() == [1]


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1 0 0.png", "line 7: has 1 fields"),
        ("1\tcat\t0.png", 'label "cat" is not a number'),
        ("1\t2\t0.png", "label 2 is not below num_classes, which is 2"),
        ("1\t-1\t0.png", "label -1 is not below"),
        ("1\t0.5\t0.png", "label 0.5 is not the number of a class"),
        ("1\tnan\t0.png", "label nan is not the number of a class"),
        ("1\t0\t1\t0.png", "has 2 labels; expected one, or the hyperparameter multi_label"),
        ("1\t0\tno.png", "there is no image .*no.png"),
    ],
)
def test_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, problem: str) -> None:
    write_listed(tmp_path, "train", COUNT)
    with (tmp_path / "train_lst/train.lst").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ImageListError, match=problem):
        open_images(channels_of(tmp_path), "train", TWO)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 1: is no JSON"),
        ("[]", "is no object"),
        ('{"class": 1}', "holds class; expected source-ref"),
        (
            '{"source-ref": "s3://b/0.png", "a": 1, "b": 2}',
            "holds source-ref, a, b; expected source-ref, one attribute",
        ),
        ('{"source-ref": "s3://b/0.png", "class": {"a": 1}}', 'label {"a": 1} is no number'),
        ('{"source-ref": "s3://b/9.png", "class": 1}', "there is no image s3://b/9.png in"),
        ('{"source-ref": "s3://b/0.png", "class": [0, 1]}', "has 2 labels; expected one"),
    ],
)
def test_line_of_a_manifest_that_cannot_be_used_is_named(tmp_path: Path, line: str, problem: str) -> None:
    write_files(tmp_path / "train", 1)
    (tmp_path / "train/a.manifest").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ImageListError) as caught:
        open_images(channels_of(tmp_path), "train", TWO)
    assert problem in str(caught.value)


def test_all_lines_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    write_listed(tmp_path, "train", COUNT)
    lines = "".join(f"{index}\t0\tgone-{index}.png\n" for index in range(12))
    (tmp_path / "train_lst/train.lst").write_text(lines, encoding="utf-8")
    with pytest.raises(ImageListError) as caught:
        open_images(channels_of(tmp_path), "train", TWO)
    assert len(caught.value.problems) == 12
    assert "line 10: there is no image" in str(caught.value)
    assert str(caught.value).endswith("and 2 more.")


@pytest.mark.parametrize(
    ("form", "record", "problem"),
    [
        (TWO, packed([2], b""), "record 2: label 2 is not below num_classes"),
        (TWO, packed([0, 1], b""), "record 2: has 2 labels; expected one"),
        (TWO, b"0123456789", "record 2: has 10 bytes, which is less than a header"),
        (TWO, packed([1] * 9, b"")[:40], "record 2: says that it has 9 labels, more than there is room for"),
        (LabelForm(3, is_multi=True), packed([1, 0], b""), "expected a 0 or 1 for each of num_classes, which is 3"),
        (LabelForm(2, is_multi=True), packed([1, 7], b""), "has the labels 1, 7; expected a 0 or 1 for each class"),
    ],
)
def test_record_whose_label_cannot_be_used_is_named(
    tmp_path: Path, form: LabelForm, record: bytes, problem: str
) -> None:
    with (tmp_path / "a.rec").open("wb") as stream:
        write_record(stream, packed([1] * (form.classes if form.is_multi else 1), png(0)))
        write_record(stream, record)
    with pytest.raises(RecordedLabelError) as caught:
        ImageRecords.open(tmp_path, form)
    assert problem in str(caught.value)


def test_records_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"holds no \.rec file with records, but: notes\.txt"):
        ImageRecords.open(tmp_path, TWO)
    (tmp_path / "a.rec").write_bytes(b"no records at all")
    with pytest.raises(DamagedRecordError, match=r"a\.rec, record 1 at byte 0"):
        ImageRecords.open(tmp_path, TWO)


def test_folders_have_to_be_as_many_as_classes(tmp_path: Path) -> None:
    write_by_folder(tmp_path, "train", COUNT)
    with pytest.raises(ImageListError, match=r"2 folders \(dark, light\); expected one for each .* which is 3"):
        open_images(channels_of(tmp_path), "train", LabelForm(3))
    with pytest.raises(ImageListError, match="folders give an image one label"):
        open_images(channels_of(tmp_path), "train", LabelForm(2, is_multi=True))


def test_channel_that_is_not_there_empty_or_a_pipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingChannelError, match="'train'"):
        open_images({}, "train", TWO)
    write_listed(tmp_path, "train", COUNT)
    channels = channels_of(tmp_path)
    piped = {"train": replace(channels["train"], mode=InputMode.PIPE)}
    with pytest.raises(ImageChannelError, match="'train' comes in Pipe mode"):
        open_images(piped, "train", TWO)
    (tmp_path / "train_lst/train.lst").unlink()
    with pytest.raises(ImageListError, match=r"no \.lst file"):
        open_images(channels, "train", TWO)


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_is_the_bytes_of_pixels_and_labels(tmp_path: Path, workers: int) -> None:
    write_listed(tmp_path, "train", COUNT)
    images = labelled(open_images(channels_of(tmp_path), "train", TWO))
    first, second = batches(DataLoader(images, 4, collate_fn=collate, num_workers=workers))
    assert (first.pixels.shape, first.pixels.dtype) == ((4, 1, 8, 8), torch.uint8)
    assert torch.cat([first.label, second.label]).tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(second.pixels[1, 0], np.asarray(Image.open(io.BytesIO(png(5)))))


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_image_is_named_even_where_a_worker_found_it(tmp_path: Path, workers: int) -> None:
    write_listed(tmp_path, "train", COUNT)
    source = open_images(channels_of(tmp_path), "train", TWO)
    (tmp_path / "train/3.png").write_bytes(png(3)[:60])
    with pytest.raises(ImageError) as caught:
        list(batches(DataLoader(labelled(source), 4, collate_fn=collate, num_workers=workers)))
    assert str(caught.value).startswith(f"{tmp_path}/train/3.png: the picture is damaged")
    assert str(caught.value).endswith("Replace the file, or take its line out of the .lst file.")


def test_what_goes_wrong_with_a_file_or_record_later_is_named(tmp_path: Path) -> None:
    write_listed(tmp_path, "train", COUNT)
    write_recorded(tmp_path, "validation", COUNT)
    files, records = (open_images(channels_of(tmp_path), name, TWO) for name in ("train", "validation"))
    (tmp_path / "train/2.png").unlink()
    (tmp_path / "train/1.png").write_text("no picture", encoding="utf-8")
    with (tmp_path / "validation/validation.rec").open("r+b") as stream:
        stream.truncate(150)
    found = [labelled(files)[2], labelled(files)[1], labelled(records)[1]]
    assert "2.png: it cannot be read: No such file or directory" in str(found[0])
    assert "1.png: it is no picture in a format that is known here" in str(found[1])
    assert "validation.rec, record 2 at byte" in str(found[2])
    assert "Pack the images again" in str(found[2])


def test_errors_reach_another_process_whole() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.png", "is torn", "Mend it.")))
    assert (str(error), error.place) == ("a.png: is torn. Mend it.", "a.png")
