"""Packages: served first in thought, then packed; nothing is written for a folder that could not be served."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import moto
import pytest
from models import code_model

from mooring.artifact.archive import extract
from mooring.artifact.store import StoreError
from mooring.workbench.package import package, plan_package

MOORING = Path(sys.executable).parent / "mooring"
HANDLER = "def model_fn(model_dir): pass\n"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MOORING), "package", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = code_model(tmp_path / "model", HANDLER)
    (folder / "code/__pycache__").mkdir()
    (folder / "code/__pycache__/inference.pyc").write_bytes(b"junk")
    return folder


def test_command_packs_and_says_how_it_would_be_served(model: Path, tmp_path: Path) -> None:
    done = run("model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "functions, because its code is code/inference.py" in done.stdout
    assert "left out    code/__pycache__: what Python compiled" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"packed      1 files, {len(HANDLER)} bytes, into ")
    extract(tmp_path / "model.tar.gz", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["code", "inference.py"]


def test_outer_folder_is_left_away(model: Path, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    shutil.move(model, tmp_path / "outer/model")
    plan = plan_package(tmp_path / "outer", str(tmp_path / "model.tar.gz"), {})
    assert list(plan.contents.files) == ["code/inference.py"]


def test_check_writes_nothing(model: Path, tmp_path: Path) -> None:
    done = run("model", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "would pack  1 files" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("empty",), 1, "Nothing here is a model"),
        (("nowhere",), 2, "there is no folder nowhere"),
        (("linked",), 1, "is a link out of the folder"),
        (("model", "-o", "s3://bucket"), 1, "s3://bucket cannot be used: expected s3://bucket/key"),
        (("model", "-o", "model/code/inference.py/x"), 1, "inference.py"),
    ],
)
def test_command_says_what_is_wrong(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (code_model(tmp_path / "linked", HANDLER) / "weights").symlink_to("/etc/hostname")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.tar.gz"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="models")
        yield "models"


def test_archive_goes_to_s3(model: Path, tmp_path: Path, bucket: str) -> None:
    variables = {"AWS_REGION": "us-east-1"}
    size = package(plan_package(model, f"s3://{bucket}/a/model.tar.gz", variables), variables, lambda _: None)
    boto3.client("s3", region_name="us-east-1").download_file(bucket, "a/model.tar.gz", str(tmp_path / "back.tar.gz"))
    assert (tmp_path / "back.tar.gz").stat().st_size == size
    extract(tmp_path / "back.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/code/inference.py").read_text(encoding="utf-8") == HANDLER


def test_bucket_that_is_not_there_is_named(model: Path, bucket: str) -> None:
    variables = {"AWS_REGION": "us-east-1"}
    plan = plan_package(model, "s3://nobodys/model.tar.gz", variables)
    with pytest.raises(StoreError, match=r"s3://nobodys/model.tar.gz cannot be written: .*NoSuchBucket"):
        package(plan, variables, lambda _: None)
