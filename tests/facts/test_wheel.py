"""What is shipped: real files where the repository has links, and one top-level name."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "mooring/workbench/templates"
PLACES = (
    "mooring/serving/server.py",
    "mooring/serving/console.html",
    "mooring/training/profiling/report.css",
    "mooring/training/__init__.py",
    "mooring/py.typed",
    *(str(file.relative_to(ROOT)) for file in TEMPLATES.rglob("*") if file.is_file() and file.suffix != ".pyc"),
)
# What an image is built from; see docs/decisions/0013.
RECIPES = ("Dockerfile.cpu", "Dockerfile.gpu", "docker/requirements/constraints.txt", "docker/bash_env.sh")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel built from the sdist, as a package index would get them."""
    folder = tmp_path_factory.mktemp("dist")
    # A copy of what git tracks or would track: a build must not depend on what else lies about, nor leave anything.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    source = folder / "source"
    source.mkdir()
    subprocess.run(
        ["tar", "-c", "--null", "-T", "-", "-f", str(folder / "source.tar")], cwd=ROOT, input=listed, check=True
    )
    subprocess.run(["tar", "-x", "-f", str(folder / "source.tar"), "-C", str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_wheel_holds_real_files_and_one_top_level_name(shipped: dict[str, Path]) -> None:
    with zipfile.ZipFile(shipped["wheel"]) as wheel:
        names = wheel.namelist()
        assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mooring"}
        for place in PLACES:
            assert place in names
        assert len(wheel.read("mooring/serving/server.py")) > 1000


def test_sdist_holds_real_files_where_the_links_are(shipped: dict[str, Path]) -> None:
    with tarfile.open(shipped["sdist"]) as sdist:
        members = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
    for place in (*PLACES, *RECIPES):
        assert members[place].isreg()
    assert not [name for name, member in members.items() if member.issym()]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installs_into_an_empty_environment(shipped: dict[str, Path], kind: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    # The sdist is built with the setuptools at hand, so that the test needs no package index.
    flags = ["--no-index"] if kind == "wheel" else ["--no-index", "--no-build-isolation"]
    if kind == "sdist":
        subprocess.run([python, "-m", "pip", "install", "-q", "setuptools>=77"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *flags, str(shipped[kind])], check=True)
    code = "import mooring.serving, mooring.training; print(mooring.training.__file__)"
    printed = subprocess.run(
        [python, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert str(tmp_path / "env") in printed
    helped = subprocess.run([tmp_path / "env/bin/mooring", "--help"], capture_output=True, text=True, check=True)
    assert "serve" in helped.stdout
