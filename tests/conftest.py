"""Options of the whole suite."""

from pathlib import Path

import docker_double
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let one ask for more than a minute or two of kills."""
    parser.addoption("--kills", type=int, default=32, help="how often the training tests kill a run, in all")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> docker_double.DockerDouble:
    """A stand-in for the docker command, first on PATH."""
    double = docker_double.install(tmp_path / "docker-double")
    monkeypatch.setenv("PATH", str(double.folder), prepend=":")
    return double
