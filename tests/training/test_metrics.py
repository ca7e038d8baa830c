"""What a script reports: lines that the platform's regular expressions find, and rows that stay whole."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import write_config
from training_jobs import Job

from mooring.training.json_lines import append_row, read_rows
from mooring.training.metric_lines import definition_regex, metric_lines, number_text, reported_name
from mooring.training.metric_rows import metrics_of
from mooring.training.metrics import MetricError, report


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    return tmp_path


def rows(base: Path) -> list[dict[str, Any]]:
    return list(read_rows(base / "output/data/metrics.jsonl"))


ROOT = Path(__file__).parents[2]

# --- lines ------------------------------------------------------------------------------------------------------------


def test_each_metric_has_a_line_with_where_it_was_taken(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(epoch=3, step=1200, loss=0.25, **{"Train-accuracy": 0.97})
    assert capsys.readouterr().out.splitlines() == [
        "[metric] epoch=3; step=1200; loss=0.25;",
        "[metric] epoch=3; step=1200; Train-accuracy=0.97;",
    ]


@pytest.mark.parametrize(
    ("name", "regex"),
    [
        ("Train-accuracy", r"Train-accuracy=([0-9\.]+)"),
        ("Validation-accuracy", r"Validation-accuracy=([0-9\.]+)"),
        ("validation:accuracy", r"validation:accuracy=([0-9\.]+)"),
        ("Train_error", r"Train_error=(.*?);"),
        ("loss", r" loss=([0-9.eE+-]+)"),
        ("loss", definition_regex("loss")),
        ("f1(macro).best", definition_regex("f1(macro).best")),
    ],
)
def test_platforms_expressions_find_their_metric_and_no_other(name: str, regex: str) -> None:
    others = {f"val_{name}": 2.0, f"{name}_2": 3.0, name.upper() + "!": 4.0}
    lines = "\n".join(metric_lines({"epoch": 1, "step": 5}, {name: 0.125} | others))
    found = re.findall(regex, lines)
    # Without a space before the name an expression finds names that end in it, whatever is printed.
    assert found == (["0.125"] if regex.startswith(" ") else ["0.125", "2"])


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_is_written_without_an_exponent_and_read_back(value: float) -> None:
    text = number_text(value)
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
    assert math.isclose(float(text), value, rel_tol=1e-7)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters=" =;", exclude_categories=["Z", "C"]), min_size=1, max_size=20))
def test_line_says_whose_it_is(name: str) -> None:
    (line,) = metric_lines({"epoch": 1.5}, {name: 1.0})
    assert reported_name("2026-01-01 " + line) == name
    assert re.findall(definition_regex(name), line) == ["1"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_matches_no_definition(value: float) -> None:
    (line,) = metric_lines({}, {"loss": value})
    assert re.findall(definition_regex("loss"), line) == []


# --- values -----------------------------------------------------------------------------------------------------------


def test_tensors_and_numpys_numbers_are_taken(base: Path) -> None:
    loss = torch.tensor(0.5, requires_grad=True)
    report(step=3, loss=loss, right=torch.tensor([7]), rate=np.float32(0.25), count=np.int64(9))
    (row,) = rows(base)
    assert row.pop("time")
    assert row == {"step": 3, "loss": 0.5, "right": 7, "rate": 0.25, "count": 9}
    assert metrics_of(row) == {"loss": 0.5, "right": 7, "rate": 0.25, "count": 9}


def test_every_bad_metric_is_named_and_nothing_is_reported(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad: dict[str, Any] = {
        "logits": torch.zeros(2, 3),
        "name": "0.5",
        "flag": True,
        "a b": 1.0,
        "time": 1.0,
        "x=": 1,
        "n" * 256: 1,
    }
    with pytest.raises(MetricError) as caught:
        report(epoch=float("nan"), loss=0.5, none=None, **bad)
    assert len(caught.value.problems) == len(bad) + 2
    for words in (
        "'epoch' is nan",
        "shape (2, 3)",
        "'name' is '0.5' (str)",
        "'flag' is True",
        "'a b'",
        "'none' is None",
    ):
        assert words in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not (base / "output").exists()


def test_nothing_of_torch_is_imported_for_a_report(base: Path) -> None:
    code = "import sys; from mooring.training import report; report(loss=1.0); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[metric] loss=1;", "False"]


def test_only_the_first_rank_speaks(tmp_path: Path) -> None:
    script = """
        import torch.distributed as dist
        from mooring.training import process_group, report
        report(before=1.0)
        with process_group() as group:
            report(step=1, rank=group.rank)
    """
    job = Job.write(tmp_path, "\n".join(line[8:] for line in script.splitlines()), ranks=2)
    code, output = job.run()
    assert code == 0, output
    assert [line for line in output.splitlines() if "[metric]" in line] == [
        "[metric] before=1;",
        "[metric] step=1; rank=0;",
    ]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_json_whatever_the_numbers(base: Path) -> None:
    report(step=1, loss=math.nan, high=math.inf, low=-math.inf)
    text = (base / "output/data/metrics.jsonl").read_text(encoding="utf-8")
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (row["loss"], row["high"], row["low"]) == ("NaN", "Infinity", "-Infinity")
    (read,) = rows(base)
    assert math.isnan(read["loss"])
    assert read["low"] == -math.inf


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ('{"a": 1}\n{"b": 2', '{"a": 1}\n'),
        ('{"a": 1}\n{"b": 2}', '{"a": 1}\n{"b": 2}\n'),
        ('{"a', ""),
        ("\0\0\0", ""),
        ("", ""),
    ],
)
def test_what_a_killed_attempt_left_of_a_line_is_closed(tmp_path: Path, before: str, kept: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(before, encoding="utf-8")
    append_row(file, {"c": 3})
    assert file.read_text(encoding="utf-8") == kept + '{"c": 3}\n'


def test_full_disk_costs_the_row_and_not_the_run(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    report(loss=1.0)
    before = rows(base)
    (base / "output/data/metrics.jsonl").rename(base / "elsewhere")
    (base / "output/data/metrics.jsonl").symlink_to("/dev/full")
    report(loss=2.0)
    assert "[metric] loss=2;" in capsys.readouterr().out
    assert "No space left on device" in caplog.text
    assert list(read_rows(base / "elsewhere")) == before


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_gets_curves_where_the_job_asks_for_them(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_config(base, "tensorboardoutputconfig.json", {"LocalPath": str(tmp_path / "curves")})
    code = "from mooring.training import report\nfor step in range(1, 501): report(step=step, loss=1 / step)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    events = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    points = {point.step: point.value for point in events.Scalars("loss")}
    # To the last: the writer's thread ends with the process, wherever it is.
    assert points == {step: pytest.approx(1 / step) for step in range(1, 501)}


def test_missing_package_names_the_extra(base: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError('not here')", encoding="utf-8")
    job = Job.write(base, "from mooring.training import report; report(loss=1.0)")
    code, output = job.run(MOORING_TENSORBOARD="true", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert code == 1, output
    assert job.failure.startswith("TensorBoardMissingError")
    assert "Install mooring[tensorboard]" in job.failure
