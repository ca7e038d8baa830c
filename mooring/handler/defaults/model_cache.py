"""A folder for second forms of models, made once and kept, with large weights in files named by their content.

Such weights are mapped, not copied, so that a cold model costs little, and models with the same weights share them in
memory and on disk. Only these copies are mapped: a file overwritten under a mapping is a SIGBUS.
"""

import hashlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

from mooring.artifact.publish import publish_file
from mooring.contract.resources import memory_available_bytes

CACHE_VARIABLE = "MOORING_MODEL_CACHE"
MIB = 1 << 20
# Below this a model loads in milliseconds as it is, and holds little.
LEAST_MODEL_BYTES = 16 * MIB
# Each external weight is a mapping of its own, of which a process may have 65,530.
LEAST_WEIGHT_BYTES = 256 * 1024
# Left free on the disk that the cache lies on.
LEAST_FREE_BYTES = 1 << 30


class Tier(Enum):
    """The forms in which a model is held."""

    INLINE = "inline"  # as its own files are: any model at first sight
    MAPPED = "mapped"  # weights mapped from the cache; of ONNX, not prepacked: cold
    PREPACKED = "prepacked"  # of ONNX: weights mapped from the cache, and prepacked: hot


@dataclass(frozen=True)
class CachedModel:
    """The mapped form of a model: its file or folder, and the weights beside it by content."""

    path: Path
    weights: Mapping[str, int]  # hash of the content -> bytes


class ModelCache(ABC):
    """A folder of mapped forms, of any kind of model."""

    # How many times its size a model's form takes of memory while it is made.
    memory_factor = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(cls, variables: Mapping[str, str]) -> Self | None:
        """Return the cache, None where nothing can be written or the folder is somebody else's."""
        given = variables.get(CACHE_VARIABLE)
        folder = Path(given) if given else Path(tempfile.gettempdir()) / f"mooring-models-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = folder.stat()
        except OSError:
            return None
        is_ours = facts.st_uid == os.getuid() and not facts.st_mode & 0o022
        return cls(folder) if is_ours and os.access(folder, os.W_OK) else None

    def has_room(self, artifact_bytes: int) -> bool:
        """Whether disk and memory allow to make the form of another model of that size."""
        if memory_available_bytes() < self.memory_factor * artifact_bytes:
            return False
        return shutil.disk_usage(self._folder).free > 2 * artifact_bytes + LEAST_FREE_BYTES

    @abstractmethod
    def make(self, source: Path) -> CachedModel | None:
        """Make the mapped form of a model; None if it has no weights that are worth it."""

    def _write(self, name: str, content: bytes) -> None:
        with publish_file(self._folder / name) as beside:
            beside.write_bytes(content)

    def _weights(self, names: Iterable[str]) -> dict[str, int] | None:
        """Return the sizes of weights by their files' names, None if one is not there any more."""
        sizes = {}
        for name in names:
            path = self._folder / name
            if not path.is_file():
                return None
            sizes[name] = path.stat().st_size
        return sizes


def version_of(*files: Path, made_with: str) -> str:
    """Return a name for files as they are now: other versions of them, or of what reads them, have other names."""
    facts = ((file.resolve(), file.stat()) for file in files)
    # Size and time of change do not tell versions apart: an archive's members all have the time that it states for
    # them, and a model trained again has the size it had. Nobody chooses the time at which a file came to be here.
    versions = [
        f"{path}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}" for path, found in facts
    ]
    return hashlib.sha256(os.fsencode("\n".join((*versions, made_with)))).hexdigest()
