"""Where models are found: under the platform's folder, in a repository of folders and archives, or one given path."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from mooring.artifact.archive import extract
from mooring.handler.access import denials_named
from mooring.handler.defaults.model_cache import version_of

from .errors import ModelNotFoundError, ModelPathError

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".mar", ".zip")


def model_name(path: Path) -> str:
    """Return the name of the model in a folder or archive: its file name without the archive's suffix."""
    for suffix in ARCHIVE_SUFFIXES:
        if path.name.endswith(suffix) and path.is_file():
            return path.name.removesuffix(suffix)
    return path.name


@dataclass
class Unpacker:
    """Gives the folder of a model, unpacking an archive once per version of it into a folder of its own."""

    cache: Path  # a folder, or the name of one that is to be made
    _locks: dict[str, Lock] = field(default_factory=dict, init=False, repr=False, compare=False)

    def folder(self, path: Path) -> Path:
        """Return `path` itself if it is a folder, else the folder its archive was unpacked to.

        Raises `UnsafeArchiveError`, `DamagedArchiveError` or `UnreadableModelError`.
        """
        if path.is_dir():
            return path
        version = version_of(path, made_with="")[:32]
        target = self.cache / version
        if not target.exists():
            with self._locks.setdefault(version, Lock()):
                self._unpack(path, target)
        return target

    def _unpack(self, path: Path, target: Path) -> None:
        if target.exists():
            return  # another thread was quicker, and its model may be loading from there
        self.cache.mkdir(mode=0o700, exist_ok=True)
        with denials_named(path):
            extract(path, target)


@dataclass(frozen=True)
class Repository:
    """A folder that models are loaded from, and from nowhere else: links that leave it are refused."""

    root: Path

    def find(self, name: str) -> Path:
        """Return the folder or archive of a model. Raises `ModelNotFoundError`."""
        if name and "/" not in name and not name.startswith("."):
            for candidate in (self.root / name, *(self.root / f"{name}{suffix}" for suffix in ARCHIVE_SUFFIXES)):
                if _exists(candidate):
                    return self._inside(name, candidate, shown=candidate.name)
        raise ModelNotFoundError(name)

    def names(self) -> list[str]:
        """Return the names of all models that lie here, by folder or archive."""
        if not self.root.is_dir():
            return []
        entries = (entry for entry in self.root.iterdir() if not entry.name.startswith("."))
        return sorted(
            {model_name(entry) for entry in entries if entry.is_dir() or entry.name.endswith(ARCHIVE_SUFFIXES)}
        )

    def resolve(self, name: str, url: str) -> Path:
        """Return the path behind a model's url. Raises `ModelPathError` outside the root, `ModelNotFoundError`."""
        if "\0" in url:
            raise ModelNotFoundError(name, url)
        path = self._inside(name, Path(url), shown=url)
        if not _exists(path):
            raise ModelNotFoundError(name, url)
        return path

    def check_links(self, name: str, folder: Path) -> None:
        """Raise `ModelPathError` if a link among a model's files leads out of the root."""
        for parent, folders, files in os.walk(folder):
            for entry in (*folders, *files):
                path = Path(parent, entry)
                if path.is_symlink():
                    self._inside(name, path, shown=str(path.relative_to(folder)))

    def _inside(self, name: str, path: Path, shown: str) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self.root)):
            raise ModelPathError(name, shown)
        return real


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for a file
        return False
