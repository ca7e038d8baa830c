"""Building: the right Dockerfile, stage and base. Docker is a stand-in: that images come out, an engine has to show."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docker_double import DockerDouble

from mooring.workbench.build import CONSTRAINTS, plan_build
from mooring.workbench.project import Kind, Project

ROOT = Path(__file__).parents[2]
MOORING = Path(sys.executable).parent / "mooring"


def build(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MOORING), "build", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    Project(tmp_path / "flowers", "flowers", Kind.BOTH).write()
    return tmp_path / "flowers"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("target", "suffix"), [("training", ""), ("inference", "-inference"), ("inference-mms", "-inference-mms")]
)
def test_checkout_builds_the_image_that_is_named(device: str, target: str, suffix: str) -> None:
    plan = plan_build(ROOT, device, target, None, [])
    file = ROOT / f"Dockerfile.{device}"
    assert plan.tag == f"mooring:{device}{suffix}"
    beginning = ("docker", "build", "--tag", plan.tag, "--file", str(file), "--target", target)
    assert plan.command[: len(beginning)] == beginning
    assert plan.command[-1] == str(ROOT)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in plan.command
    assert f"AS {target}\n" in file.read_text(encoding="utf-8")
    assert (ROOT / CONSTRAINTS).is_file()


def test_project_starts_from_the_image_that_is_named(project: Path, docker: DockerDouble) -> None:
    done = build("--gpu", "--target", "inference", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "flowers\n"
    assert docker.words == [
        ["build", "--tag", "flowers", "--build-arg", "BASE_IMAGE=mooring:gpu-inference", "."],
    ]


def test_base_of_ones_own_comes_last_and_wins(project: Path) -> None:
    plan = plan_build(project, "cpu", "training", "x:1", ["--build-arg", "BASE_IMAGE=mine"])
    assert plan.command[-3:] == ("--build-arg", "BASE_IMAGE=mine", str(project))
    assert plan.base is None


def test_dockerfile_without_a_choice_of_base_gets_none(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    assert "--build-arg" not in plan_build(project, "cpu", "training", None, []).command


def test_dockers_own_options_come_after_two_dashes(project: Path, docker: DockerDouble) -> None:
    done = build("--tag", "flowers:3", "--", "--no-cache", "--pull=false", cwd=project)
    assert done.returncode == 0, done.stderr
    assert docker.words[0][-3:] == ["--no-cache", "--pull=false", "."]
    assert done.stdout == "flowers:3\n"


def test_dry_run_asks_nothing(project: Path, docker: DockerDouble) -> None:
    done = build("--dry-run", cwd=project)
    assert done.stdout == "docker build --tag flowers --build-arg BASE_IMAGE=mooring:cpu .\n"
    assert docker.words == []


@pytest.mark.parametrize(
    ("where", "arguments", "code", "words"),
    [
        ("empty", (), 1, "pip download --no-deps --no-binary mooring"),
        ("flowers", (), 1, "mooring build --source DIR --cpu --target training"),
        ("flowers", ("--cpu", "--gpu"), 2, "not allowed with"),
        ("flowers", ("--target", "serving"), 2, "invalid choice: 'serving'"),
    ],
)
def test_what_is_wrong_is_told(
    project: Path, docker: DockerDouble, where: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    docker.set(build="pull access denied for mooring, repository does not exist")
    (project.parent / "empty").mkdir()
    done = build(*arguments, cwd=project.parent / where)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
