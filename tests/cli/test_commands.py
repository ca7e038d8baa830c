"""The commands as they are installed: what they say, and what they exit with."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def call(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **variables},
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("mooring", "--help"), ["train", "serve"]),
        (("train", "--help"), ["MOORING_PROGRAM", "MOORING_GRACE_SECONDS", "exit codes"]),
        (("serve", "--help"), ["--model", "--repository", "SAGEMAKER_BIND_TO_PORT", "exit codes"]),
        (("mooring", "serve", "--help"), ["--model"]),
        (("mooring", "--version"), ["mooring 0."]),
    ],
)
def test_help_teaches(command: tuple[str, ...], words: list[str]) -> None:
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("mooring", "sail"), ["there is no command 'sail'", "train"]),
        (("train", "--fast"), ["unrecognized arguments: --fast"]),
        (("serve", "--budget", "lots"), ['"lots" is no size', "512M"]),
        (("serve", "--model", "a", "--repository", "b"), ["not allowed with"]),
        (("serve", "--port", "http"), ["invalid int value: 'http'"]),
    ],
)
def test_wrong_usage_exits_2_and_says_what_would_help(command: tuple[str, ...], words: list[str]) -> None:
    done = call(*command)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words)


def test_path_that_is_not_there_is_named() -> None:
    done = call("serve", "--model", "/no/such/model")
    assert done.returncode == 1
    assert 'serve: --model is "/no/such/model"; expected a path that exists.' in done.stderr


def test_port_in_use_is_told_and_exits_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = call("serve", "--repository", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_train_without_a_job_names_the_missing_file(tmp_path: Path) -> None:
    done = call("train", SAGEMAKER_BASE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "resourceconfig.json" in done.stderr
    assert "resourceconfig.json" in (tmp_path / "output/failure").read_text(encoding="utf-8")


def test_front_door_and_supervisor_import_no_machine_learning_library() -> None:
    program = (
        "import sys, mooring.cli.serve, mooring.cli.train, mooring.serving.server, mooring.training.launcher\n"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
