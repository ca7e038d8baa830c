"""The import finder behind the stand-ins: it offers ours for a name that nothing else provides.

It comes last on `sys.meta_path`, so that an installed package, or a module of the user's, is always found first.
"""

import logging
import sys
from collections.abc import Sequence
from enum import Enum
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

logger = logging.getLogger(__name__)

# Scripts that train and serve from one file import the names of both, wherever they run.
TOOLKITS = (
    "sagemaker_inference",
    "sagemaker_pytorch_serving_container",
    "sagemaker_huggingface_inference_toolkit",
    "sagemaker_training",
)
# Names this short may mean something else to a training script.
SERVERS = ("mms", "ts")


class Room(Enum):
    """Where the user's code runs."""

    TRAINING = "training"
    SERVING = "serving"


NAMES = {Room.TRAINING: TOOLKITS, Room.SERVING: (*TOOLKITS, *SERVERS)}


class StandInFinder(MetaPathFinder):
    """Finds the packages beside this file by the names that they stand in for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a stand-in lies. Its submodules are found in its folder as any package's are."""
        if fullname not in self.names:
            return None
        logger.debug("%s is not installed; Mooring's stand-in takes its place.", fullname)
        folder = Path(__file__).parent / fullname
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def install(room: Room) -> StandInFinder:
    """Offer the stand-ins to code imported from now on; the finder is returned. Calling it again changes nothing."""
    names = NAMES[room]
    for finder in sys.meta_path:
        if isinstance(finder, StandInFinder) and finder.names.issuperset(names):
            return finder
    added = StandInFinder(names)
    sys.meta_path.append(added)
    return added
