"""Reports of made-up results, and the samples that images are tried with."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnxruntime
import pytest

from mooring.workbench.conformance.examine import ROWS, rows_of
from mooring.workbench.conformance.finding import Finding, Outcome
from mooring.workbench.conformance.image import ImageTraits
from mooring.workbench.conformance.report import Report, as_json, as_junit, as_text
from mooring.workbench.conformance.row import Part, Result
from mooring.workbench.conformance.samples import (
    CAUSE,
    EXIT_CODE,
    FAILS,
    REQUEST,
    write_large_model,
    write_model,
    write_script,
)
from mooring.workbench.conformance.subject import Given, Subject

FIRST, SECOND, THIRD = rows_of([Part.SERVING])[:3]
REPORT = Report(
    "ours:1",
    [
        Result(FIRST, Finding(Outcome.PASSED, "Fine."), 0.25),
        Result(SECOND, Finding(Outcome.FAILED, "It wrote \x1b[31m<red>\x00 & ended."), 1.0),
        Result(THIRD, Finding(Outcome.NOT_APPLICABLE, "Nobody asked."), 0.0),
    ],
)


def test_text_has_the_contract_only_where_it_was_not_kept() -> None:
    text = as_text(REPORT)
    assert f"  pass  {FIRST.name}: {FIRST.title} [2.1]\n        Fine.\n  FAIL" in text
    assert text.count("Contract ") == 1
    assert SECOND.line in text
    assert text.endswith("1 pass, 1 fail, 1 not applicable.\n")


def test_text_tells_of_a_part_that_is_not_there_once() -> None:
    absent = Finding(Outcome.NOT_APPLICABLE, "It does not serve.")
    text = as_text(Report("ours:1", [Result(row, absent, 0.0) for row in (FIRST, SECOND, THIRD)]))
    assert "serving\n  n/a   all 3 rows\n        It does not serve.\n\n0 pass, 0 fail, 3 not applicable." in text


def test_json_has_everything() -> None:
    report = json.loads(as_json(REPORT))
    assert report["image"] == "ours:1"
    assert report["counts"] == {"pass": 1, "fail": 1, "not applicable": 1}
    assert report["rows"][1] == {
        "id": SECOND.id,
        "part": "serving",
        "title": SECOND.title,
        "outcome": "fail",
        "reason": "It wrote \x1b[31m<red>\x00 & ended.",
        "seconds": 1.0,
        "contract": {
            "section": "2.1",
            "title": SECOND.section.title,
            "line": SECOND.line,
            "url": SECOND.section.url,
        },
    }


def test_junit_is_xml_whatever_a_container_wrote() -> None:
    root = ET.fromstring(as_junit(REPORT))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("time")) == (
        "3",
        "1",
        "1",
        "1.250",
    )
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "It wrote �[31m<red>� & ended."
    assert SECOND.line in (failure.text or "")


def test_sample_model_answers_the_sample_request(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.array(json.loads(REQUEST.body), dtype=np.float32)})
    assert answer.tolist() == [[2, 4, 6]]


def test_large_sample_is_a_model_of_its_size(tmp_path: Path) -> None:
    file = write_large_model(tmp_path / "model", 4 << 20) / "model.onnx"
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.initializer[0].dims == [1 << 20]
    assert 4 << 20 < file.stat().st_size < (4 << 20) + 200


@pytest.mark.parametrize(
    ("facts", "only", "tried"),
    [
        (ImageTraits(), (), {"image"}),
        (ImageTraits(commands=frozenset({"train"})), (), {"image", "training"}),
        (ImageTraits(commands=frozenset({"serve"})), (), {"image", "serving"}),
        (ImageTraits(entrypoint=("python", "serve.py")), (), {"image", "serving"}),
        (ImageTraits(entrypoint=("python", "train.py")), ("training",), {"image", "training", "serving"}),
        (ImageTraits(has_shell=False), (), {"image", "serving"}),
    ],
)
def test_parts_are_tried_that_the_image_can_have(
    tmp_path: Path, facts: ImageTraits, only: tuple[str, ...], tried: set[str]
) -> None:
    subject = Subject("some:1", facts, Given(only=frozenset(map(Part, only))), tmp_path)
    assert {part.value for part in Part if not subject.why_not(part)} == tried


def test_every_row_says_what_it_asks_and_where_that_is_written() -> None:
    for row in ROWS:
        assert row.title
        assert row.line.endswith(".")
        assert row.section.url.startswith("https://")


def test_failing_sample_says_more_than_the_platform_shows(tmp_path: Path) -> None:
    script = write_script(tmp_path / "code", FAILS) / "train.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_CODE
    assert CAUSE not in done.stderr[:1024]
