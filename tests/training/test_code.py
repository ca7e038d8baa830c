"""The user's code: from wherever it is, with what it requires, before any rank starts."""

import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from training_jobs import Job, Run
from wheels import write_wheel

from mooring.artifact.archive import pack
from mooring.artifact.store import StoreError
from mooring.training.code import fetch_code
from mooring.training.entry_point import EntryPointError


def source_folder(base: Path) -> Path:
    source = base / "source"
    (source / "lib").mkdir(parents=True)
    (source / "train.py").write_text("from lib import part\nprint('value', part.VALUE)\n", encoding="utf-8")
    (source / "lib/part.py").write_text("VALUE = 42\n", encoding="utf-8")
    return source


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {"train.py", "lib/part.py"}


# --- fetching ---------------------------------------------------------------------------------------------------------


def test_folder_archive_and_file_are_put_where_code_is_expected(tmp_path: Path) -> None:
    source = source_folder(tmp_path)
    pack(source, tmp_path / "source.tar.gz")
    for given, expected in (
        (source, WHOLE),
        (tmp_path / "source.tar.gz", WHOLE),
        (source / "train.py", {"train.py"}),
    ):
        code = tmp_path / f"code-{given.name}"
        code.mkdir()  # as a mount point would be
        fetch_code(str(given), code, {})
        assert names(code) == expected


def test_code_that_an_image_brings_is_left_alone_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").touch()
    fetch_code(str(source_folder(tmp_path)), code, {})
    assert names(code) == {"mine.py"}
    assert "holds code already" in caplog.text


def test_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EntryPointError, match="/nowhere does not exist"):
        fetch_code("/nowhere", tmp_path / "code", {})


def test_hostile_archive_leaves_no_code(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("train.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    job = Job.write(tmp_path / "job")
    code, _ = job.run(SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY=str(tmp_path / "source.tar.gz"))
    assert code == 1
    assert "member 'train.py' is a link" in job.failure
    assert names(job.paths.code) == set()


class Bucket(BaseHTTPRequestHandler):
    """Just enough of S3's REST interface for boto3 to download from it."""

    objects: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        content = self.objects.get(self.path.split("?")[0])
        self.send_response(200 if content is not None else 404)
        self.send_header("content-length", str(len(content or b"")))
        self.send_header("etag", '"x"')
        self.end_headers()
        if with_body:
            self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bucket() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}


def test_archive_in_s3_is_fetched_from_the_endpoint_that_is_named(tmp_path: Path, bucket: str) -> None:
    pack(source_folder(tmp_path), tmp_path / "source.tar.gz")
    Bucket.objects["/bucket/job/source.tar.gz"] = (tmp_path / "source.tar.gz").read_bytes()
    job = Job.write(
        tmp_path / "job",
        hyperparameters={
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": "s3://bucket/job/source.tar.gz",
        },
    )
    code, output = job.run(S3_ENDPOINT_URL=bucket, **CREDENTIALS)
    assert code == 0, output
    assert "value 42" in output
    assert "code from s3://bucket/job/source.tar.gz: 2 file(s)" in output


@pytest.mark.parametrize(
    ("uri", "problem"), [("s3://bucket/no-such.tar.gz", "404"), ("s3://bucket", "expected s3://bucket/key")]
)
def test_object_that_cannot_be_fetched_is_named(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str
) -> None:
    for key, value in CREDENTIALS.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(StoreError, match=f"{uri} cannot be (fetched|used): .*{problem}"):
        fetch_code(uri, tmp_path / "code", {"S3_ENDPOINT_URL": bucket, "AWS_REGION": "eu-west-1"})


# --- requirements -----------------------------------------------------------------------------------------------------


@pytest.fixture
def uninstalled() -> Iterator[str]:
    """The name of a package that this environment does not have, before or after. Another process has another one."""
    name = f"mooring_probe_{os.getpid()}"
    yield name
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-qy", name], check=True, capture_output=True)


def test_requirements_come_from_wheels_beside_the_code(tmp_path: Path, uninstalled: str) -> None:
    job = Job.write(
        tmp_path, f"#!/bin/bash\n{sys.executable} -c 'import {uninstalled} as m; print(m.VERSION)'\n", name="run.sh"
    )
    write_wheel(job.paths.code / "wheels", uninstalled)
    (job.paths.code / "requirements.txt").write_text(uninstalled, encoding="utf-8")
    code, output = job.run()
    assert code == 0, output
    assert "\n1.0\n" in output


def test_requirement_that_would_replace_torch_is_refused(tmp_path: Path, uninstalled: str) -> None:
    job = Job.write(tmp_path, "#!/bin/bash\necho ran\n", name="run.sh")
    write_wheel(job.paths.code / "wheels", uninstalled, requires=["torch<2"])
    (job.paths.code / "requirements.txt").write_text(uninstalled, encoding="utf-8")
    code, output = job.run()
    assert code == 1
    assert "ran" not in output.splitlines()
    assert job.failure.startswith("InstallError")
    assert "torch" in job.failure


def test_requirement_that_is_nowhere_ends_the_job_with_pips_words(tmp_path: Path, uninstalled: str) -> None:
    job = Job.write(tmp_path, "#!/bin/bash\necho ran\n", name="run.sh")
    (job.paths.code / "wheels").mkdir()
    (job.paths.code / "requirements.txt").write_text(uninstalled, encoding="utf-8")
    assert job.run(PATH=os.defpath)[0] == 1  # uv, which would say it in other words, may lie beside this Python
    assert "No matching distribution" in job.failure
    assert "folder 'wheels'" in job.failure


# --- the child that does it -------------------------------------------------------------------------------------------


@pytest.fixture
def preparing(tmp_path: Path) -> Iterator[tuple[Job, Run]]:
    """A job that fetches its code from an endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        job = Job.write(tmp_path)
        run = job.start(
            SAGEMAKER_PROGRAM="train.py",
            SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/source.tar.gz",
            S3_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}",
            **CREDENTIALS,
        )
        with run.process, silent.accept()[0]:
            yield job, run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_does_not_wait_for_preparations(preparing: tuple[Job, Run], number: int, code: int) -> None:
    job, run = preparing
    family = run.family()
    assert len(family) > 1
    run.signal(number)
    assert run.wait() == code
    assert not [process for process in family if process.is_running()]
    assert f"stopped by {signal.Signals(number).name} while its code was being prepared" in job.failure


def test_what_fails_in_the_child_is_told_by_its_error(tmp_path: Path) -> None:
    job = Job.write(tmp_path)
    assert job.run(SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY="/nowhere")[0] == 1
    assert job.failure.startswith("EntryPointError: ")
    assert "/nowhere does not exist" in job.failure


def test_preparations_that_are_killed_are_told(preparing: tuple[Job, Run]) -> None:
    job, run = preparing
    run.family()[1].kill()
    assert run.wait() == 1
    assert "exit code 137" in job.failure
