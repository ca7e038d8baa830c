"""A tuning job's objective: it never reaches the script, and a job that does not report it is told so."""

from pathlib import Path

import pytest
from training_jobs import Job

from mooring.contract.paths import ContainerPaths
from mooring.training.json_lines import append_row
from mooring.training.metric_rows import metrics_file
from mooring.training.objective import ObjectiveMissingError, check_objective

SCRIPT = """
import json, os, sys
from mooring.training import hyperparameters, report
from dataclasses import dataclass

@dataclass
class Settings:
    width: int = 1

print("SEES", json.dumps([sys.argv[1:], hyperparameters(Settings).width, os.environ["SM_HPS"], sorted(
    value for name, value in os.environ.items() if name.startswith(("SM_HP", "SM_USER"))
)]))
{report}
"""
REPORTS = 'report(epoch=1, loss=0.5, **{"Validation-accuracy": 0.9})'


def tuned(base: Path, objective: str, report: str = REPORTS) -> Job:
    parameters = {"width": 8, "_tuning_objective_metric": objective}
    return Job.write(base, SCRIPT.replace("{report}", report), hyperparameters=parameters)


def test_objective_never_reaches_the_script(tmp_path: Path) -> None:
    code, output = tuned(tmp_path, "validation:accuracy").run()
    assert code == 0, output
    (seen,) = [line for line in output.splitlines() if line.startswith("SEES")]
    assert "--width" in seen
    assert "tuning" not in seen
    assert "validation:accuracy" not in seen
    assert "WARNING" not in output


def test_job_that_never_reports_its_objective_is_warned_with_what_it_did_report(tmp_path: Path) -> None:
    job = tuned(tmp_path, "val_accuracy")
    code, output = job.run()
    assert code == 0, output
    for words in (
        "compares its jobs by 'val_accuracy'",
        "'Validation-accuracy', 'loss'",
        "mean 'Validation-accuracy'?",
    ):
        assert words in output
    assert not job.paths.failure.exists()
    assert job.paths.success.exists()


def test_job_that_must_report_its_objective_fails_without_it(tmp_path: Path) -> None:
    job = tuned(tmp_path, "f1", report="")
    code, output = job.run(MOORING_REQUIRE_OBJECTIVE="true")
    assert code == 1, output
    assert job.failure.startswith("ObjectiveMissingError: The tuning job compares its jobs by 'f1'")
    assert "nor any other metric" in job.failure
    assert not job.paths.success.exists()


def test_setting_that_cannot_be_used_is_said_before_the_job_runs(tmp_path: Path) -> None:
    job = tuned(tmp_path, "f1")
    code, output = job.run(MOORING_REQUIRE_OBJECTIVE="maybe")
    assert code == 1
    assert "SEES" not in output
    assert 'MOORING_REQUIRE_OBJECTIVE is "maybe"; expected true or false' in job.failure


@pytest.mark.parametrize("objective", ["validation:accuracy", "Validation-accuracy", "validation_accuracy"])
def test_name_of_a_definition_may_differ_in_its_signs(tmp_path: Path, objective: str) -> None:
    paths = ContainerPaths(tmp_path)
    append_row(metrics_file(paths), {"epoch": 1, "Validation-accuracy": 0.5})
    check_objective(paths, objective)


def test_where_and_when_are_no_metrics(tmp_path: Path) -> None:
    paths = ContainerPaths(tmp_path)
    append_row(metrics_file(paths), {"epoch": 1, "time": 1.0, "loss": 0.5})
    with pytest.raises(ObjectiveMissingError) as caught:
        check_objective(paths, "epoch")
    assert caught.value.reported == ("loss",)
