"""Texts that come through pipes, or to each host a part of them: all ranks have all of them, in one order."""

import json
import shutil
from pathlib import Path
from pipes import describe_pipes, framed, written
from typing import Any

import pytest
import torch
from jobs import write_config
from ranks import Ranks
from text_jobs import fine_tune_here, text_job, texts

from mooring.contract.channels import Channel
from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.typed import parse_hyperparameters
from mooring.training.data import passes
from mooring.training.data.pipe import PipeError
from mooring.training.distributed import Group
from mooring.training.programs.texts.channels import labelled_texts
from mooring.training.programs.texts.records import LabelledText, TextDataError
from mooring.training.programs.texts.settings import Settings

ALONE = Group(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
CSV, LINES, RECORDED = "text/csv", "application/jsonlines", "application/x-recordio"
# What each rank runs: it prints all texts that it has.
SCRIPT = """
import json
from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.training import process_group
from mooring.training.programs.texts.channels import labelled_texts
from mooring.training.programs.texts.settings import Settings
with process_group() as group:
    channels = TrainingEnvironment.load(process_variables()).channels
    print(json.dumps([text.text for text in labelled_texts(channels["train"], Settings(), group)]), flush=True)
"""


@pytest.fixture(autouse=True)
def new_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes are numbered from 0."""
    monkeypatch.setattr(passes, "_next_numbers", {})


def piped(base: Path, monkeypatch: pytest.MonkeyPatch, **fields: str) -> Channel:
    """The channel of a job that comes through a pipe."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.setenv("MOORING_ALGORITHM", "text-classification")
    describe_pipes(base, train=fields)
    write_config(base, "resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
    return TrainingEnvironment.load(process_variables()).channels["train"]


def read(channel: Channel, **given: Any) -> list[LabelledText]:
    return labelled_texts(channel, parse_hyperparameters(Settings, given), ALONE)


FIRST, SECOND = b'text,label\n"one, two",a\nthree,b\n', b"text,label\nfour,a\n"


@pytest.mark.parametrize(
    ("content", "fields", "given"),
    [
        (FIRST + SECOND, {"ContentType": CSV}, {}),
        (framed(FIRST, SECOND), {"ContentType": CSV, "RecordWrapperType": "RecordIO"}, {}),
        (
            b'{"text": "one, two", "label": "a"}\n{"text": "three", "label": "b"}\n{"text": "four", "label": "a"}\n',
            {"ContentType": LINES},
            {},
        ),
        (b'a,"one, two"\nb,three\na,four\n', {"ContentType": CSV}, {"label_column": 0, "text_column": 1}),
        (
            framed(b"one, two", b"a", b"three", b'"b"', b"four", b"a"),
            {"ContentType": RECORDED, "RecordWrapperType": "RecordIO"},
            {"text_column": "source", "label_column": "class"},
        ),
    ],
    ids=["csv-of-two-files", "csv-in-records", "json-lines", "csv-without-names", "manifest"],
)
def test_texts_come_through_a_pipe_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, fields: dict[str, str], given: dict[str, Any]
) -> None:
    with written(tmp_path, train=content):
        found = read(piped(tmp_path, monkeypatch, **fields), **given)
    assert [(text.text, text.label) for text in found] == [("one, two", "a"), ("three", "b"), ("four", "a")]


def test_pairs_of_texts_come_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = piped(tmp_path, monkeypatch, ContentType=RECORDED, RecordWrapperType="RecordIO")
    with written(tmp_path, train=framed(b"12", b"it is wet", b"1")):
        (found,) = read(channel, text_pair_column="hypothesis")
    assert (found.text, found.pair, found.label) == ("12", "it is wet", 1)


@pytest.mark.parametrize(
    ("content", "fields", "kind", "sentence"),
    [
        (b"text,label\nfine,a\n,b\n", {"ContentType": CSV}, TextDataError, "train_0, line 3: column 'text' is \"\""),
        (
            framed(FIRST, b"text,label\nfour\n"),
            {"ContentType": CSV, "RecordWrapperType": "RecordIO"},
            TextDataError,
            "train_0, record 2, line 2: has 1 fields where the first line has 2",
        ),
        (
            framed(b"\xff", b"1"),
            {"RecordWrapperType": "RecordIO"},
            TextDataError,
            "train_0, line 1: byte 1 is 0xff, which is not UTF-8",
        ),
        (b"", {"ContentType": LINES}, TextDataError, "'train' holds no texts, but: a pipe with nothing in it"),
        (
            framed(FIRST, SECOND)[:-10],
            {"ContentType": CSV, "RecordWrapperType": "RecordIO"},
            PipeError,
            "train_0: channel 'train': the writer ended within record 2",
        ),
    ],
)
def test_what_cannot_be_used_of_a_pipe_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    fields: dict[str, str],
    kind: type[Exception],
    sentence: str,
) -> None:
    with written(tmp_path, train=content), pytest.raises(kind, match=sentence):
        read(piped(tmp_path, monkeypatch, **fields))


def test_parts_of_hosts_are_put_together_on_all_ranks(tmp_path: Path) -> None:
    """One of the hosts has nothing, as where there are fewer objects than hosts."""
    bases = [tmp_path / name for name in ("1", "2", "3")]
    for base, names in zip(bases, (["one", "two"], [], ["three"]), strict=True):
        write_job(base, {"S3DistributionType": "ShardedByS3Key", "TrainingInputMode": "File"})
        (base / "input/data/train").mkdir(parents=True)
        if names:
            lines = "".join(f"{name},a\n" for name in names)
            (base / "input/data/train/a.csv").write_text("text,label\n" + lines, encoding="utf-8")
    assert Ranks(SCRIPT, bases, 1, {}).results() == [["one", "two", "three"]] * 3


def test_ranks_of_a_host_share_its_pipe(tmp_path: Path) -> None:
    bases = [tmp_path / "1", tmp_path / "2"]
    contents = [b"text,label\none,a\n", b"text,label\ntwo,b\n"]
    for base in bases:
        write_job(base, {"S3DistributionType": "ShardedByS3Key", "TrainingInputMode": "Pipe", "ContentType": CSV})
    with written(bases[0], train=contents[0]), written(bases[1], train=contents[1]):
        assert Ranks(SCRIPT, bases, 2, {}).results() == [["one", "two"]] * 4
    for base in bases:
        write_job(base, {"TrainingInputMode": "Pipe", "ContentType": CSV})
    with written(bases[0], train=contents[0]):  # the other host's, which would be the same, is not waited for
        assert Ranks(SCRIPT, bases, 2, {}).results() == [["one"]] * 4


def write_job(base: Path, channel: dict[str, str]) -> None:
    write_config(base, "inputdataconfig.json", {"train": channel})
    write_config(base, "resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
    write_config(base, "hyperparameters.json", {"algorithm": "text-classification"})


def test_model_is_the_same_whether_its_texts_came_in_files_or_through_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {
        name: "".join(["text,label\n", *(f"{text},{label}\n" for text, label in texts(24, seed))]).encode()
        for seed, name in enumerate(("train", "validation"))
    }
    models = []
    for mode in ("File", "Pipe"):
        job = text_job(tmp_path / mode, epochs=1, channels=["validation"])
        described = {name: {"TrainingInputMode": mode, "ContentType": CSV} for name in contents}
        write_config(job.base, "inputdataconfig.json", described | {"model": {"TrainingInputMode": "File"}})
        for name, content in contents.items():
            if mode == "Pipe":
                shutil.rmtree(job.paths.channel(name))
            else:
                (job.paths.channel(name) / "texts.csv").write_bytes(content)
        with written(job.base, **(contents if mode == "Pipe" else {})):
            fine_tune_here(job, monkeypatch)
        models.append((job.paths.model / "model.safetensors").read_bytes())
        rows = (job.paths.output_data / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        assert "validation_accuracy" in json.loads(rows[-1])
    assert models[0] == models[1]
