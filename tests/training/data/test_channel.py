"""Channels as files: which are found, how they fall into samples, in what order, and where a resumed run goes on."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import write_config

from mooring.artifact.recordio import frame
from mooring.contract.channels import InputMode
from mooring.contract.errors import MissingChannelError
from mooring.training import Augmented, Csv, DataPosition, JsonLines, Lines, Records, channel, data_loader
from mooring.training.data.channel import EmptyChannelError, InputChannel
from mooring.training.data.files import PackedDataError
from mooring.training.data.formats import UnknownFormatError
from mooring.training.data.manifests import ManifestError
from mooring.training.data.rows import NoRandomAccessError
from mooring.training.data.samples import SampleError


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    return tmp_path


def file_channel(base: Path, files: dict[str, bytes], **fields: object) -> InputChannel:
    """A channel `train` that holds some files."""
    write_config(base, "inputdataconfig.json", {"train": {"TrainingInputMode": "File"} | fields})
    for name, content in files.items():
        path = base / "input/data/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (base / "input/data/train").mkdir(parents=True, exist_ok=True)
    return channel("train")


def lines(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last))


def numbers(batches: Any) -> list[int]:
    return [int(line) for batch in batches for line in batch]


# --- which channels and files there are -------------------------------------------------------------------------------


def test_channel_that_was_not_given_is_named_with_those_that_were(base: Path) -> None:
    write_config(base, "inputdataconfig.json", {"train": {}, "test": {}})
    with pytest.raises(MissingChannelError, match=r"'validation' was not given.*'test', 'train'"):
        channel("validation")


def test_channel_is_found_without_a_platform(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (base / "input/data/train").mkdir(parents=True)
    monkeypatch.setenv("SM_CHANNEL_TEST", str(tmp_path / "elsewhere"))
    assert channel("train").path == base / "input/data/train"
    assert channel("test").path == tmp_path / "elsewhere"
    assert channel("test").mode is InputMode.FILE
    with pytest.raises(MissingChannelError, match="'test', 'train'"):
        channel("other")


def test_only_data_counts_as_files(base: Path) -> None:
    names = ["b.csv", "a/c.csv", "a.json", ".hidden", "_SUCCESS", "_temporary/x.csv", "d.csv.part", ".git/y", "e.csv~"]
    train = file_channel(base, dict.fromkeys(names, b"1\n"))
    assert [str(path.relative_to(train.path)) for path in train.files()] == ["a/c.csv", "a.json", "b.csv"]
    assert [path.name for path in train.files(".csv")] == ["c.csv", "b.csv"]
    with pytest.raises(EmptyChannelError, match="Channel 'train' has no files in"):
        train.files(".txt")


def test_empty_channel_is_an_error_and_not_an_empty_epoch(base: Path) -> None:
    with pytest.raises(EmptyChannelError, match="has no files"):
        file_channel(base, {"_SUCCESS": b""}).batches(1, sample_format=Lines())


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/csv", [([2.0, 3.0], 1.0)]),
        ("text/csv; label_size=0", [([1.0, 2.0, 3.0],)]),
        ("text/csv;label_size=2", [([3.0], [1.0, 2.0])]),
        ("text/plain", [("1,2,3",)]),
    ],
)
def test_content_type_says_how_to_read(base: Path, content_type: str, expected: list[Any]) -> None:
    train = file_channel(base, {"a": b"1,2,3\n"}, ContentType=content_type)
    read = [batch if isinstance(batch, list | tuple) else (batch,) for batch in train.batches(1)]
    shown = [tuple(part[0].tolist() if isinstance(part, torch.Tensor) else part for part in batch) for batch in read]
    assert shown == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"x": 1}\n', {"x": [1]}),
        ("a.txt.gz", gzip.compress(b"x", mtime=0), ["x"]),
        ("a.rec", frame(b"x"), [b"x"]),
    ],
)
def test_names_of_files_say_how_to_read_where_nothing_else_does(
    base: Path, name: str, content: bytes, expected: Any
) -> None:
    (batch,) = file_channel(base, {name: content}).batches(1)
    shown = {key: value.tolist() for key, value in batch.items()} if isinstance(batch, dict) else batch
    assert shown == expected


@pytest.mark.parametrize("files", [{"a.bin": b"x"}, {"a.csv": b"1", "b.jsonl": b"1"}])
def test_format_that_nothing_tells_is_asked_for(base: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(UnknownFormatError, match=r"How to read channel 'train' is not known.*such as Csv\(\)"):
        file_channel(base, files).batches(1)


QUOTED = b'\xef\xbb\xbfname,"age\n(years)"\r\n"Doe, Jane",7\r\n\r\n"two\nlines\n\nthree ""quoted""",8'


@pytest.mark.parametrize("way", ["batches", "rows"])
def test_quoted_fields_hold_commas_quotes_and_ends_of_lines(base: Path, way: str) -> None:
    train = file_channel(base, {"a.csv": QUOTED})
    csv = Csv(has_header=True, as_text=True)
    read = list(train.rows(csv)) if way == "rows" else [b[0] for b in train.batches(1, None, csv, collate=list)]
    assert read == [["Doe, Jane", "7"], ['two\nlines\n\nthree "quoted"', "8"]]


@pytest.mark.parametrize("way", ["batches", "rows"])
@pytest.mark.parametrize(
    ("reading", "content", "message"),
    [
        (Csv(), b"1,2\n\n1,x\n", 'a, line 3, column 2: "x" is not a number'),
        (Csv(), b"label,x\n1,2\n", 'line 1, column 1: "label" is not a number; is it a header'),
        (Csv(), b"1\n", "line 1: has 1 columns, of which 1 are labels"),
        (Csv(), b'1,2\n"1,2\n3\n', "line 2: "),
        (Csv(), b"1,2\n1,\xff\n", "line 2: byte 3 is 0xff, which is not UTF-8"),
        (JsonLines(), b'{"a": 1}\n\n{"a": }\n', "line 3, column 7: is not JSON: Expecting value"),
        (Lines(), b"ok\n\n\xfe\n", "line 3: byte 1 is 0xfe"),
        (Records(), frame(b"one") + b"garbage!", "record 2 at byte 12: it begins with"),
        (Records(), frame(b"one") + frame(b"two")[:-1], "record 2 at byte 12: the file ends"),
    ],
)
def test_damage_is_told_by_file_line_and_column(
    base: Path, reading: Any, content: bytes, message: str, way: str
) -> None:
    train = file_channel(base, {"a": content})
    with pytest.raises(Exception, match=message) as caught:
        list(train.rows(reading) if way == "rows" else train.batches(1, None, reading))
    assert "MooringError" in {kind.__name__ for kind in type(caught.value).__mro__}
    assert "train/a" in str(caught.value)


def test_damage_that_a_worker_finds_is_the_same_error(base: Path) -> None:
    train = file_channel(base, {"a": b"1,2\n1,x\n"})
    with pytest.raises(SampleError, match="line 2, column 2") as caught:
        list(train.batches(1, None, Csv(), num_workers=1))
    assert (caught.value.number, caught.value.column) == (2, 2)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-6], lambda packed: packed[:20] + b"\0\0" + packed[22:]])
def test_damaged_gzip_names_the_file(base: Path, damage: Any) -> None:
    train = file_channel(base, {"a.gz": damage(gzip.compress(lines(0, 1000)))})
    with pytest.raises(PackedDataError, match=r"a\.gz: "):
        list(train.batches(1, None, Lines()))


# --- order, shares, resumption ----------------------------------------------------------------------------------------

FILES = {"a": lines(0, 40), "b.gz": gzip.compress(lines(40, 70)), "c": lines(70, 100)}


@pytest.mark.parametrize("mode", ["File", "FastFile"])
@pytest.mark.parametrize("workers", [0, 2])
def test_order_is_that_of_files_and_lines_whatever_the_workers(base: Path, workers: int, mode: str) -> None:
    train = file_channel(base, FILES, TrainingInputMode=mode)
    assert numbers(train.batches(10, None, Lines(), num_workers=workers)) == list(range(100))


def test_shuffled_order_depends_on_seed_and_epoch_only(base: Path) -> None:
    train = file_channel(base, FILES)

    def order(seed: int, epoch: int, workers: int = 0) -> list[int]:
        position = DataPosition(epoch=epoch)
        return numbers(train.batches(10, position, Lines(), shuffle=25, seed=seed, num_workers=workers))

    first = order(1, 0)
    assert sorted(first) == list(range(100))
    assert first != list(range(100))
    assert order(1, 0) == first
    assert order(1, 0, workers=2) == first
    assert order(2, 0) != first
    assert order(1, 1) != first


@pytest.mark.parametrize(
    ("consumed", "workers", "shuffle"), [(10, 0, 0), (40, 0, 30), (50, 2, 30), (90, 2, 0), (100, 0, 30)]
)
def test_resumed_run_goes_on_at_the_same_sample(base: Path, consumed: int, workers: int, shuffle: int) -> None:
    train = file_channel(base, FILES)
    whole = numbers(train.batches(10, DataPosition(2), Lines(), shuffle=shuffle))
    position = DataPosition(epoch=2, consumed=consumed)
    resumed = numbers(train.batches(10, position, Lines(), shuffle=shuffle, num_workers=workers))
    assert resumed == whole[consumed:]


def test_sample_that_is_not_this_ranks_is_not_parsed(base: Path) -> None:
    """What was consumed before is passed over as bytes; a damaged line there was somebody else's."""
    train = file_channel(base, {"a": b"x\n1\n2\n"})
    position = DataPosition(consumed=1)
    assert [batch.tolist() for batch in train.batches(1, position, Csv(label_size=0))] == [[[1.0]], [[2.0]]]


# --- by number --------------------------------------------------------------------------------------------------------

TEXT = b"\nfirst\r\n\r\nsecond\n\n\nlast"


@pytest.mark.parametrize("text", [TEXT, TEXT + b"\n", TEXT + b"\r\n\n"])
def test_rows_are_the_samples_that_batches_give(base: Path, text: bytes) -> None:
    train = file_channel(base, {"a": text, "b": b"", "c": b"\xef\xbb\xbfmore\n"})
    rows = train.rows(Lines())
    assert [rows[index] for index in range(len(rows))] == ["first", "second", "last", "more"]
    assert rows[-1] == "more"
    assert [batch[0] for batch in train.batches(1, None, Lines())] == list(rows)
    with pytest.raises(IndexError):
        rows[4]


def test_rows_of_many_blocks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, quotes and ends of lines may lie across the blocks that a file is read in."""
    monkeypatch.setattr("mooring.training.data.rows.BLOCK_BYTES", 5)
    content = b'"a\nb",1\r\nc,2\n\n"d""\n\n",3\n'
    assert list(file_channel(base, {"a.csv": content}).rows(Csv(as_text=True))) == [
        ["a\nb", "1"],
        ["c", "2"],
        ['d"\n\n', "3"],
    ]


def test_rows_of_records_use_offsets(base: Path) -> None:
    magic = bytes.fromhex("0a23d7ce")
    contents = [b"one", b"abcd" + magic + b"!", b"", b"x" * 5000]
    rows = file_channel(base, {"a.rec": b"".join(map(frame, contents)), "b.rec": frame(b"other")}).rows()
    assert [rows[index] for index in (4, 1, 0, 3, 2)] == [b"other", contents[1], b"one", contents[3], b""]


def test_rows_go_through_the_sampler_with_workers(base: Path) -> None:
    train = file_channel(base, {"a": lines(0, 20), "b": lines(20, 40)})
    rows = train.rows(Lines())
    position = DataPosition()
    whole = numbers(data_loader(rows, train.sampler(rows, 8, position, seed=3), num_workers=2))
    assert sorted(whole) == list(range(40))
    position.consumed = 16
    assert numbers(data_loader(rows, train.sampler(rows, 8, position, seed=3))) == whole[16:]


def test_compressed_file_has_no_rows(base: Path) -> None:
    with pytest.raises(NoRandomAccessError, match=r"b\.gz: is compressed.*batches\(\)"):
        file_channel(base, FILES).rows(Lines())


def test_rows_of_fast_file_mode_are_warned_of(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(file_channel(base, {"a": b"x\n"}, TrainingInputMode="FastFile").rows(Lines())) == ["x"]
    assert "slow where samples are read in any order" in caplog.text


def test_file_that_shrinks_after_it_was_opened_is_told(base: Path) -> None:
    train = file_channel(base, {"a": b"one\ntwo\n"})
    rows = train.rows(Lines())
    (train.path / "a").write_bytes(b"one\n")
    with pytest.raises(SampleError, match="has become shorter"):
        rows[1]


# --- manifests --------------------------------------------------------------------------------------------------------


def augmented_channel(base: Path, rows: list[Any], mode: str = "File") -> InputChannel:
    train = file_channel(base, {"cats/a.jpg": b"A", "b c.jpg": b"B"}, TrainingInputMode=mode)
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (base / "input/data/train-manifest").write_text(content, encoding="utf-8")
    return train


ROWS = [
    {"source-ref": "s3://bucket/some/prefix/cats/a.jpg", "class": 1, "class-metadata": {"job": "x"}},
    {"source-ref": "s3://bucket/some/prefix/b%20c.jpg", "class": 0},
]


@pytest.mark.parametrize("way", ["batches", "rows"])
def test_augmented_manifest_gives_objects_and_attributes(base: Path, way: str) -> None:
    train = augmented_channel(base, ROWS)
    reading = Augmented("source-ref", "class")
    read = list(train.rows(reading)) if way == "rows" else [b[0] for b in train.batches(1, None, reading, collate=list)]
    assert read == [{"source-ref": b"A", "class": 1}, {"source-ref": b"B", "class": 0}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"source-ref": "s3://bucket/gone.jpg", "class": 1},
            "line 2: attribute 'source-ref' is \"s3://bucket/gone.jpg",
        ),
        ({"source-ref": "s3://bucket/a.jpg"}, "line 2: has no attribute class; it has 'source-ref'"),
        ({"source-ref": "s3://b/../../../etc/passwd", "class": 1}, "which is no file below"),
        ([1], "line 2: is not an object"),
    ],
)
def test_row_of_a_manifest_that_cannot_be_used_is_told(base: Path, row: Any, message: str) -> None:
    train = augmented_channel(base, [ROWS[0], row])
    with pytest.raises(SampleError, match=message):
        list(train.rows(Augmented("source-ref", "class")))


def test_channel_without_a_manifest_is_told(base: Path) -> None:
    with pytest.raises(ManifestError, match="train-manifest: is not there, and in train there is no file called"):
        file_channel(base, {"a": b""}).rows(Augmented("source-ref"))


def test_manifest_lists_files_in_its_order(base: Path) -> None:
    train = file_channel(base, {"b": b"", "sub/a": b""})
    manifest = base / "input/data/train-manifest"
    manifest.write_text(json.dumps([{"prefix": "s3://bucket/some/"}, "sub/a", "b"]), encoding="utf-8")
    assert train.listed_files() == [train.path / "sub/a", train.path / "b"]
    manifest.write_text(json.dumps([{"prefix": "s3://bucket/some/"}, "sub/a", "gone"]), encoding="utf-8")
    with pytest.raises(ManifestError, match=r"lists objects that are not in .*: gone"):
        train.listed_files()
    manifest.write_text("{}", encoding="utf-8")
    with pytest.raises(ManifestError, match="is no manifest; expected"):
        train.listed_files()


# --- progress ---------------------------------------------------------------------------------------------------------


def test_long_read_is_told_with_rate_and_time_left(
    base: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mooring.training.data.progress.EVERY_S", 0.0)
    caplog.set_level(logging.INFO)
    train = file_channel(base, FILES)
    list(train.batches(1, None, Lines()))
    assert "channel 'train', epoch 0: " in caplog.text
    assert "(100%)" in caplog.text
    assert " left" in caplog.text
