"""`mooring metrics` as it is run: on logs that people have, with definitions that they write."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
LOG = """\
[metric] epoch=1; step=10; loss=0.5;
[metric] epoch=1; step=10; val_loss=0.75;
[metric] epoch=2; step=20; loss=0.25;
Loss: 0.25 after 20 steps
[metric] epoch=2; step=20; val_loss=nan;
"""


def metrics(*arguments: str, stdin: str = LOG) -> tuple[int, str]:
    done = subprocess.run(
        [str(BIN / "mooring"), "metrics", *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_definition_that_is_right_shows_lines_values_and_count() -> None:
    code, output = metrics("--test", " loss=([0-9.eE+-]+);", "-")
    assert code == 0, output
    assert "line      1  0.5 " in output
    assert "line      3  0.25 " in output
    assert "nearly      line      4  Loss: 0.25 after 20 steps" in output
    assert "2 matches in 5 lines: last 0.25, least 0.25, greatest 0.5" in output


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        ("loss=([0-9.eE+-]+)", "it matches the lines of 2 metrics: 'loss', 'val_loss'. For 'loss' alone: \" loss=("),
        (" loss=[0-9.]+", "it has no group"),
        (" (loss)=([0-9.]+)", "it has 2 groups"),
        (" (loss=[0-9.]+)", 'values are no numbers, first in line 1: "loss=0.5"'),
        ("loss=([0-9.", "it is no regular expression"),
        (" loss=(" + "0" * 500 + ")?", "the expression has 509 characters; the platform takes 1 to 500"),
        (" accuracy=([0-9.]+)", "0 matches in 5 lines"),
    ],
)
def test_definition_that_is_wrong_says_how(regex: str, words: str) -> None:
    code, output = metrics("--test", regex)
    assert code == 1, output
    assert words in output


def test_every_definition_of_an_estimator_is_tried(tmp_path: Path) -> None:
    file, log = tmp_path / "definitions.json", tmp_path / "train.log"
    log.write_text(LOG, encoding="utf-8")
    good = [{"Name": f"m{n}", "Regex": r" loss=([0-9\.]+);"} for n in range(40)]
    file.write_text(json.dumps(good), encoding="utf-8")
    assert metrics("--definitions", str(file), str(log))[0] == 0
    file.write_text(json.dumps([*good, {"Name": "n" * 256, "Regex": " val_loss=(.*?);"}, good[0]]), encoding="utf-8")
    code, output = metrics("--definitions", str(file), str(log))
    assert code == 1
    for words in ("42 definitions; the platform takes 40", "'m0' is defined more than once", "has 256 characters"):
        assert words in output


@pytest.mark.parametrize("content", ["", "{", '{"Name": "x"}', '[{"Name": "x"}]', "[1]"])
def test_definitions_that_cannot_be_read_are_explained(tmp_path: Path, content: str) -> None:
    file = tmp_path / "definitions.json"
    file.write_text(content, encoding="utf-8")
    code, output = metrics("--definitions", str(file))
    assert code == 1
    assert str(file) in output


def test_what_a_job_reported_is_shown_at_a_glance(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [
        '{"epoch": 1, "loss": 0.5, "time": 1}',
        '{"epoch": 2, "loss": 0.25, "time": 2}',
        '{"epoch": 3, "loss": "NaN"}',
    ]
    file.write_text("\n".join([*rows, '{"epo']), encoding="utf-8")
    code, output = metrics(str(file))
    assert code == 0, output
    cells = ["loss", "3", "nan", "0.25 (epoch 2)", "0.5 (epoch 1)", "epoch 3"]
    assert re.split(" {2,}", output.splitlines()[1]) == cells


def test_no_metrics_is_a_failure_that_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert str(file) in metrics(str(file))[1]
    file.touch()
    assert metrics(str(file)) == (1, f"mooring metrics: {file} holds no metrics.\n")


def test_binary_log_and_long_lines_do_no_harm(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe\0 loss=1.5;" + b"x" * 100_000 + b"\n loss=2;")
    code, output = metrics("--test", " loss=([0-9.]+);", str(log))
    assert code == 0
    assert "2 matches in 2 lines: last 2" in output
    assert len(output) < 1000
