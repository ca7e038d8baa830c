"""docker/compose.yaml: a job, and then an endpoint with what it left."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from images import Images
from servers import free_port

from mooring.runner.platform_files import write_training_inputs

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker/compose.yaml"
EXAMPLE = ROOT / "examples/byoc"


class Project:
    """A project of compose's with a folder of its own for /opt/ml."""

    def __init__(self, name: str, ml: Path, image: str) -> None:
        self.ml = ml
        self.port = free_port()
        self._command = ["docker", "compose", "--project-name", name, "--file", str(COMPOSE)]
        self._variables: Mapping[str, str] = {
            "ML": str(ml),
            "IMAGE": image,
            "SERVE_IMAGE": image,
            "PORT": str(self.port),
            "RUN_AS": f"{os.getuid()}:{os.getgid()}",
        }

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of compose's commands."""
        command, variables = [*self._command, *words], os.environ | self._variables
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def project(images: Images, tmp_path: Path) -> Iterator[Project]:
    """The job of examples/byoc, its code mounted rather than in an image."""
    paths = write_training_inputs(tmp_path / "ml", hyperparameters={"ridge": 0.0}, channels={"train": "text/csv"})
    shutil.copytree(EXAMPLE / "code", paths.code, dirs_exist_ok=True)
    shutil.copytree(EXAMPLE / "data", paths.channel("train"), dirs_exist_ok=True)
    made = Project(f"mooring-{os.getpid()}", tmp_path / "ml", images.cpu)
    yield made
    print(made("logs").stdout, file=sys.stderr)
    made("down", "--volumes", "--timeout", "5")


@pytest.mark.slow
def test_endpoint_serves_what_the_job_left(project: Project) -> None:
    up = project("up", "--detach", "--wait")
    assert up.returncode == 0, up.stderr
    answer = httpx.post(f"http://127.0.0.1:{project.port}/invocations", json=[[3, 70]], timeout=30)
    assert answer.json() == pytest.approx([285.0])
    (job,) = (json.loads(line) for line in project("ps", "--all", "--format", "json", "train").stdout.splitlines())
    assert job["ExitCode"] == 0
    stopped = project("stop")
    assert stopped.returncode == 0, stopped.stderr
    states = [json.loads(line) for line in project("ps", "--all", "--format", "json").stdout.splitlines()]
    assert {state["Service"]: state["ExitCode"] for state in states} == {"train": 0, "serve": 0}


@pytest.mark.slow
def test_nothing_is_served_after_a_job_that_failed(project: Project) -> None:
    (project.ml / "code/train.py").write_text("raise ValueError('no luck')\n", encoding="utf-8")
    assert project("up", "--detach").returncode != 0
    assert "no luck" in (project.ml / "output/failure").read_text(encoding="utf-8")
    running = project("ps", "--services", "--status", "running")
    assert running.stdout.split() == []


def test_folder_that_is_not_there_is_an_error(images: Images, tmp_path: Path) -> None:
    misspelt = Project(f"mooring-none-{os.getpid()}", tmp_path / "lm", images.cpu)
    try:
        up = misspelt("up", "--detach")
    finally:
        misspelt("down", "--timeout", "5")
    assert up.returncode != 0
    assert "does not exist" in up.stderr
    assert not (tmp_path / "lm").exists()
