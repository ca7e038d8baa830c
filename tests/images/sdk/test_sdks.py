"""The SageMaker Python SDK, v2 and v3, unmodified, trains and deploys with our image in its Local Mode, offline."""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from containers import docker
from images import Images
from servers import free_port

HERE = Path(__file__).parent
SCRIPT = HERE.parents[2] / "examples/own_script/train.py"
TIMEOUT_S = 900
ROWS = 96


def environment(version: str) -> Path:
    """Return the Python of an environment that holds a version of the SDK, made from its lock once."""
    home, lock = Path(sys.prefix) / "sdks" / version, HERE / f"requirements-{version}.txt"
    ready = home / "ready"
    home.parent.mkdir(exist_ok=True)
    with (home.parent / f"{version}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != lock.read_text():
            venv.create(home, clear=True)
            uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--system-certs"]
            command = [*uv, "--python", str(home / "bin/python"), "--no-deps", "--require-hashes", "-r", str(lock)]
            subprocess.run(command, check=True, timeout=TIMEOUT_S)
            ready.write_text(lock.read_text())
    return home / "bin/python"


def write_table(folder: Path) -> Path:
    """Points of two classes, that lie apart."""
    folder.mkdir()
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % 2
    points = random.standard_normal((ROWS, 2)) / 4 + np.where(labels, 2.0, -2.0)[:, None]
    np.savetxt(folder / "points.csv", np.column_stack([points, labels]), delimiter=",", fmt=["%.4f", "%.4f", "%d"])
    return folder


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_sdk_trains_and_deploys_with_our_image_in_local_mode(images: Images, tmp_path: Path, version: str) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(SCRIPT.read_text(), encoding="utf-8")
    base = tmp_path / "local"
    base.mkdir()
    config = tmp_path / "config.yaml"  # without it the SDK tells its makers
    config.write_text("SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n")
    given = {
        "image": images.cpu,
        "base": str(base),
        "code": str(code),
        "data": str(write_table(tmp_path / "data")),
        "hyperparameters": {"epochs": 20, "width": 8},
        "port": free_port(),
        "query": [[2.0, 2.0], [-2.0, -2.0]],
    }
    variables = {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(config),
    }
    python = environment(version)
    with one_at_a_time(base):
        done = run(python, version, given, variables, tmp_path)
    assert done.returncode == 0, done.stdout[-8000:]
    probabilities = np.array(json.loads((base / "answer.json").read_text()))
    assert probabilities.argmax(axis=1).tolist() == [1, 0]


@contextmanager
def one_at_a_time(base: Path) -> Iterator[None]:
    """Keep others out of the network that both versions name alike; what an SDK leaves behind is gone at the end."""
    with (Path(tempfile.gettempdir()) / "mooring-sdk.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:
            place = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
            for line in docker("ps", "--all", "--format", place).splitlines():
                number, _, folder = line.partition(" ")
                if folder.startswith(str(base)):
                    docker("rm", "--force", number)


def run(
    python: Path, version: str, given: Mapping[str, object], variables: Mapping[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, HERE / f"{version}.py", json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **variables},
        cwd=folder,
    )
