"""The commands as they are installed: what they say, and what they exit with."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from denials import WITHOUT_RIGHTS, deny
from models import code_model, scale_model

from mooring.artifact.archive import pack

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
        (("mooring", "--help"), ["train", "metrics", "profile", "serve"]),
        (("mooring", "metrics", "--help"), ["--test", "--definitions", "metrics.jsonl", "exit codes"]),
        (("mooring", "profile", "--help"), ["report.html", "rank-", "exit codes"]),
        (
            ("train", "--help"),
            ["MOORING_ALGORITHM", "MOORING_GRACE_SECONDS", "MOORING_REQUIRE_OBJECTIVE", "exit codes"],
        ),
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
        (("serve", "--budget-bytes", "lots"), ['--budget-bytes is "lots"', "512M"]),
        (("serve", "--model", "a", "--repository", "b"), ["not allowed with"]),
        (("serve", "--port", "http"), ['--port is "http"; expected a whole number']),
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


def test_doctor_says_which_handler_and_why(tmp_path: Path) -> None:
    scale_model(tmp_path / "wrapped/model")
    done = call("mooring", "doctor", str(tmp_path / "wrapped"))
    assert done.returncode == 0, done.stderr
    for words in (
        "onnx, because it holds model.onnx",
        "shared with other models",
        "folder model/",
        "no code/inference.py",
    ):
        assert words in done.stdout


def test_doctor_looks_into_archives(tmp_path: Path) -> None:
    pack(code_model(tmp_path / "m", "import torch\ndef model_fn(d): pass\n"), tmp_path / "model.tar.gz")
    done = call("mooring", "doctor", str(tmp_path / "model.tar.gz"))
    assert done.returncode == 0, done.stderr
    for words in ("functions, because its code is code/inference.py", "its own", "backend     torch"):
        assert words in done.stdout


def test_doctor_names_files_that_its_user_may_not_read(tmp_path: Path) -> None:
    doctor = [*WITHOUT_RIGHTS, str(Path(sys.executable).parent / "mooring"), "doctor"]
    deny(scale_model(tmp_path / "m") / "model.onnx")
    pack(tmp_path / "m", tmp_path / "m.tar.gz")
    deny(tmp_path / "m.tar.gz")
    looked = subprocess.run([*doctor, str(tmp_path / "m")], capture_output=True, text=True, check=True)
    assert "unreadable  model.onnx, for this user" in looked.stdout
    looked = subprocess.run([*doctor, str(tmp_path / "m.tar.gz")], capture_output=True, text=True, check=False)
    assert looked.returncode == 1
    assert "may not read m.tar.gz (mode" in looked.stderr


def test_doctor_fails_where_a_named_script_is_missing_and_strict_also_without_code(tmp_path: Path) -> None:
    scale_model(tmp_path / "m")
    named = {"SAGEMAKER_PROGRAM": "serve.py"}
    assert call("mooring", "doctor", str(tmp_path / "m"), **named).returncode == 0
    strict = call("mooring", "doctor", "--strict", str(tmp_path / "m"), **named)
    assert strict.returncode == 1
    assert "serve.py is named but not there" in strict.stderr
    code_model(tmp_path / "m", "")
    assert call("mooring", "doctor", str(tmp_path / "m"), **named).returncode == 1


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_doctor_explains_what_it_cannot_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tar.gz").write_bytes(content)
    for path in ("model.tar.gz", "nothing"):
        done = call("mooring", "doctor", str(tmp_path / path))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert path in done.stderr
