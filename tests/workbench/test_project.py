"""A new project: whole or not there, never over anything, and its own tests pass."""

import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from mooring.artifact.publish import publish_files
from mooring.contract.errors import SettingError
from mooring.workbench.project import Kind, Project, ProjectExistsError, suggested_name

ROOT = Path(__file__).parents[2]
MOORING = Path(sys.executable).parent / "mooring"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def init(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MOORING), "init", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", [Kind.SERVE, pytest.param(Kind.BOTH, marks=pytest.mark.slow)])
def test_tests_of_a_new_project_pass(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "flowers"
    Project(folder, "flowers", kind).write()
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{3 if kind is Kind.BOTH else 2} passed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "has", "lacks"),
    [
        (Kind.TRAIN, {"train.py", "tests/test_training.py"}, {"model/mooring.toml", "model/code/inference.py"}),
        (Kind.SERVE, {"model/mooring.toml", "model/code/inference.py"}, {"train.py", "data/train/rows.csv"}),
        (Kind.BOTH, {"train.py", "model/mooring.toml", "model/code/inference.py"}, set()),
    ],
)
def test_project_has_what_its_kind_needs(tmp_path: Path, kind: Kind, has: set[str], lacks: set[str]) -> None:
    names = set(Project(tmp_path / "new", "flowers", kind).write())
    assert names == set(everything(tmp_path / "new"))
    assert has | {"Dockerfile", ".dockerignore", "README.md"} <= names
    assert not lacks & names
    instructions = (tmp_path / "new/Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in instructions] == ["ARG", "FROM", "COPY"]
    readme = (tmp_path / "new/README.md").read_text(encoding="utf-8")
    assert readme.startswith("# flowers\n")
    assert [part in readme for part in ("## Training", "## Serving")] == [
        kind is not Kind.SERVE,
        kind is not Kind.TRAIN,
    ]


def test_files_that_are_there_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine", encoding="utf-8")
    (tmp_path / "train.py").symlink_to("nowhere")
    with pytest.raises(ProjectExistsError, match=r"already, so nothing is written: Dockerfile, train\.py\. Move them"):
        Project(tmp_path, "flowers", Kind.BOTH).write()
    assert everything(tmp_path) == {"Dockerfile": b"mine"}


def test_project_goes_into_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("mine", encoding="utf-8")
    names = Project(tmp_path, "flowers", Kind.SERVE).write()
    assert set(everything(tmp_path)) == {*names, "model/notes.txt"}


def test_failure_half_way_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    """A file that appears between the check and the writing is kept, and what was written before it is gone."""
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    with ExitStack() as stack:
        beside = stack.enter_context(publish_files(tmp_path))
        (beside / "a").mkdir()
        for name in ("a/new.txt", "b.txt", "c.txt"):
            (beside / name).write_text("new", encoding="utf-8")
        (tmp_path / "c.txt").write_text("somebody was faster", encoding="utf-8")
        with pytest.raises(FileExistsError):
            stack.close()
    assert everything(tmp_path) == {"kept.txt": b"mine", "c.txt": b"somebody was faster"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "kept.txt"]


def test_new_folder_is_not_there_when_writing_fails(tmp_path: Path) -> None:

    def write_half() -> None:
        with publish_files(tmp_path / "new") as beside:
            (beside / "a.txt").write_text("half", encoding="utf-8")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["Flowers", "a b", "", "-a", "a..b", "a/b"])
def test_name_that_no_image_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match="--name is"):
        Project(tmp_path, name, Kind.BOTH)


@pytest.mark.parametrize(("folder", "name"), [("My Model!", "my-model"), ("…", "project"), ("a_b", "a-b")])
def test_suggested_name_can_be_used(tmp_path: Path, folder: str, name: str) -> None:
    assert suggested_name(tmp_path / folder) == name
    Project(tmp_path, name, Kind.BOTH)


def test_command_writes_and_names_the_files(tmp_path: Path) -> None:
    done = init("flowers", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {f"flowers/{name}" for name in everything(tmp_path / "flowers")}
    assert "cd flowers && python -m pytest" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "no terminal to ask on; give --name and --kind, or --yes"),
        (("--yes", "--name", "Big Name"), 2, '--name is "Big Name"; expected lower-case'),
        (("--kind", "fly", "--yes"), 2, "invalid choice: 'fly'"),
        (("taken", "--yes"), 1, "Dockerfile"),
        (("file", "--yes"), 1, "file"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/Dockerfile").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    done = init(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert set(everything(tmp_path)) == {"taken/Dockerfile", "file"}


def test_command_asks_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(MOORING), "init", "flowers"], cwd=tmp_path, stdin=theirs, stderr=subprocess.PIPE) as it:
        assert it.stderr is not None
        asked = b""
        for prompt, answer in (
            (b"Name [flowers]: ", b"roses\n"),
            (b"Kind (both, train or serve) [both]: ", b"serve\n"),
        ):
            while not asked.endswith(prompt):
                piece = it.stderr.read1(1)  # type: ignore[attr-defined]
                assert piece, asked
                asked += piece
            os.write(ours, answer)
        assert it.wait(60) == 0
    os.close(ours)
    os.close(theirs)
    assert (tmp_path / "flowers/README.md").read_text(encoding="utf-8").startswith("# roses\n")
    assert not (tmp_path / "flowers/train.py").exists()
