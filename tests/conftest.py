"""Options of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let one ask for more than a minute or two of kills."""
    parser.addoption("--kills", type=int, default=32, help="how often the training tests kill a run, in all")
