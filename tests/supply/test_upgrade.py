"""The constraints are raised: by uv for real, to what a folder of made-up wheels offers."""

import html
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from wheels import write_wheel

DOCKER = Path(__file__).parents[2] / "docker"
PROJECT = """
[project]
name = "probe"
version = "1"
requires-python = ">=3.11"
[project.optional-dependencies]
web = ["Fast_Web>=1"]
[dependency-groups]
dev = ["checker>=1,<3"]
"""
CONSTRAINTS = """\
# What the tests ran with.
checker==1.0
Fast_Web==1.0
# Of fast-web, and nobody else.
routes==1.0
"""


@dataclass(frozen=True)
class Project:
    """A project with our scripts, its constraints, and an index of its own."""

    base: Path

    @property
    def constraints(self) -> Path:
        return self.base / "docker/requirements/constraints.txt"

    def offer(self, name: str, version: str, *requires: str, pythons: str = ">=3.0", tag: str = "py3-none-any") -> None:
        """Put a wheel into the index, which says of each for which Pythons it is."""
        folder = self.base / "index" / name.replace("_", "-")
        write_wheel(folder, name, version, requires=requires, pythons=pythons, tag=tag)
        with (folder / "index.html").open("a") as page:
            wheel = f"{name}-{version}-{tag}.whl"
            page.write(f'<a href="{wheel}" data-requires-python="{html.escape(pythons)}">{wheel}</a>\n')

    def upgrade(self, *options: str) -> tuple[int, str]:
        scripts = str(Path(sys.executable).parent)
        variables = {
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "UV_OFFLINE": "1",
            "UV_DEFAULT_INDEX": (self.base / "index").as_uri(),
            "UV_CACHE_DIR": str(self.base / "cache"),
        }
        command = [sys.executable, str(self.base / "docker/upgrade.py"), "--extras=web", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "docker/requirements").mkdir(parents=True)
    for script in ("lock.py", "upgrade.py"):
        shutil.copy(DOCKER / script, tmp_path / "docker")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    project = Project(tmp_path)
    project.constraints.write_text(CONSTRAINTS)
    for version in ("1.0", "2.0", "3.0"):
        project.offer("checker", version)
    project.offer("fast_web", "1.0", "routes")
    project.offer("routes", "1.0")
    return project


def test_versions_rise_within_the_projects_ranges_and_comments_stay(project: Project) -> None:
    project.offer("routes", "1.5")
    code, told = project.upgrade()
    assert code == 0, told
    assert project.constraints.read_text() == CONSTRAINTS.replace("checker==1.0", "checker==2.0").replace(
        "routes==1.0", "routes==1.5"
    )
    assert "checker 1.0 -> 2.0\n  routes 1.0 -> 1.5\n2 of 3 versions changed. Next: make lock" in told
    assert "Nothing of 3 packages is newer." in project.upgrade()[1]


def test_dry_run_tells_and_writes_nothing(project: Project) -> None:
    code, told = project.upgrade("--dry-run")
    assert code == 0, told
    assert "checker 1.0 -> 2.0" in told
    assert project.constraints.read_text() == CONSTRAINTS


def test_line_that_ends_in_a_comment_is_held_and_its_reason_told(project: Project) -> None:
    held = CONSTRAINTS.replace("checker==1.0", "checker==1.0  # 2 wants a licence")
    project.constraints.write_text(held)
    code, told = project.upgrade()
    assert code == 0, told
    assert "checker 1.0 is held: 2 wants a licence" in told
    assert project.constraints.read_text() == held


def test_version_that_another_package_cannot_bear_is_not_taken(project: Project) -> None:
    project.offer("routes", "2.0")
    project.offer("fast_web", "1.1", "routes<2")
    project.upgrade()
    assert "Fast_Web==1.1\n# Of fast-web, and nobody else.\nroutes==1.0\n" in project.constraints.read_text()


def test_no_version_falls_for_the_sake_of_another(project: Project) -> None:
    """uv would take the older `routes` to have the newest `fast-web`, or the other way round."""
    project.constraints.write_text(CONSTRAINTS.replace("routes==1.0", "routes==2.0"))
    project.offer("routes", "2.0")
    project.offer("fast_web", "2.0", "routes<2")
    code, told = project.upgrade()
    assert code == 0, told
    assert "Fast_Web==1.0" in project.constraints.read_text()
    assert "routes==2.0" in project.constraints.read_text()


def test_what_is_new_finds_its_place_and_what_nothing_asks_for_is_named(project: Project) -> None:
    project.offer("fast_web", "2.0", "paths")
    project.offer("paths", "7.0")
    code, told = project.upgrade()
    assert code == 0, told
    assert (
        "Fast_Web==2.0\npaths==7.0\n# Of fast-web, and nobody else.\nroutes==1.0\n" in project.constraints.read_text()
    )
    assert "paths 7.0 is new" in told
    assert "routes 1.0 is asked for by nothing any more" in told


def test_what_is_installed_beside_is_raised_without_what_it_asks_for(project: Project) -> None:
    project.offer("client", "2.0", "checker<1", "offered_by_nobody")
    project.constraints.write_text(CONSTRAINTS + "client==1.0\n")
    code, told = project.upgrade("--beside", "client", "checker")
    assert code == 0, told
    assert project.constraints.read_text() == CONSTRAINTS.replace("checker==1.0", "checker==2.0") + "client==2.0\n"


def test_old_pythons_are_not_left_behind(project: Project) -> None:
    """A version for each Python would be the newest, but a constraint holds for all of them."""
    project.offer("routes", "2.0", pythons=">=3.12")
    code, told = project.upgrade()
    assert code == 0, told
    assert "routes==1.0" in project.constraints.read_text()


def test_version_that_arm64_cannot_have_is_not_written(project: Project) -> None:
    project.offer("routes", "2.0", tag="py3-none-manylinux_2_28_x86_64")
    code, told = project.upgrade()
    assert code == 1
    assert "routes==2.0" in told
    assert "make upgrade: " in told
    assert "Nothing was changed." in told
    assert project.constraints.read_text() == CONSTRAINTS
    project.constraints.write_text(CONSTRAINTS.replace("routes==1.0", "routes==1.0  # 2.0 has nothing for arm64"))
    assert project.upgrade()[0] == 0
    assert "checker==2.0" in project.constraints.read_text()


def test_ranges_that_cannot_be_met_are_told_in_uvs_words(project: Project) -> None:
    project.constraints.write_text(CONSTRAINTS.replace("checker==1.0", "checker==3.0"))
    code, told = project.upgrade()
    assert code == 1
    assert "checker>=1,<3" in told
    assert project.constraints.read_text().startswith("# What the tests ran with.\nchecker==3.0\n")
