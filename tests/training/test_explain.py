"""`mooring explain` says what would happen and makes nothing happen."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs import HOMOGENEOUS, write_config
from training_jobs import Job


def explained(base: Path, *options: str, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "mooring"), "explain", *options],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SAGEMAKER_BASE_DIR": str(base), **variables},
    )
    return done.returncode, done.stdout, done.stderr


def test_plan_is_told_whole_and_nothing_runs(tmp_path: Path) -> None:
    job = Job.write(tmp_path, "open('/tmp/never', 'w')", hyperparameters={"epochs": 3, "hub_token": "hunter2"})
    write_config(tmp_path, "resourceconfig.json", HOMOGENEOUS)
    code, out, err = explained(tmp_path, "--json", SAGEMAKER_PROGRAM="train.py", MOORING_PROCESSES_PER_HOST="2")
    assert code == 0, err
    plan: dict[str, Any] = json.loads(out)
    assert plan["runs"] == f"python {job.paths.code / 'train.py'}"
    assert plan["arguments"] == ["--epochs", "3", "--hub_token", "******"]
    assert (plan["world_size"], plan["ranks_meet"]) == (4, "algo-1:7777")
    assert [rank["variables"]["RANK"] for rank in plan["ranks"]] == ["0", "1"]
    assert "hunter2" not in out


def test_text_names_what_would_be_fetched(tmp_path: Path) -> None:
    Job.write(tmp_path)
    code, out, err = explained(
        tmp_path, SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/source.tar.gz"
    )
    assert code == 0, err
    assert "fetches code from s3://bucket/source.tar.gz" in out
    assert "runs             python " in out


def test_job_that_cannot_run_is_explained_too(tmp_path: Path) -> None:
    Job.write(tmp_path)
    code, _, err = explained(tmp_path)
    assert code == 1
    assert "mooring explain: There is nothing to run" in err
