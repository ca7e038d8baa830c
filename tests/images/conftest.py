"""Tests that need a Docker engine: skipped where none answers, unless it is said that one must."""

import os
from pathlib import Path

import pytest
from images import REQUIRED_VARIABLE, Images, engine_answers

HERE = Path(__file__).parent
# The first test of a run builds what it needs.
TIMEOUT_S = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def images() -> Images:
    """Return the tags of our images."""
    if not engine_answers():
        assert REQUIRED_VARIABLE not in os.environ, "a Docker engine is required, and none answers"
        pytest.skip("no Docker engine answers")
    return Images()
