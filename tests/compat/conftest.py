"""Stand-ins are installed for one test at a time, and leave nothing behind in this process."""

import sys
from collections.abc import Iterator

import pytest

from mooring.compat.finder import NAMES, Room, StandInFinder, install


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """Undo what tests and the handlers they load do to imports."""
    path, finders, modules = list(sys.path), list(sys.meta_path), set(sys.modules)
    yield
    sys.path[:] = path
    sys.meta_path[:] = finders
    stand_ins = NAMES[Room.SERVING]
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in (*stand_ins, "inference", "service", "handler_service", "network"):
            del sys.modules[name]


@pytest.fixture
def serving() -> StandInFinder:
    """Offer what handlers import."""
    return install(Room.SERVING)
