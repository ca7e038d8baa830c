"""Where a load may take a model from: below one root, as a folder or an archive, and from nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from .errors import ModelFilesError
from .repository import Repository, Unpacker


@dataclass(frozen=True)
class ModelPaths:
    """Turns the url of a load request into a folder on disk."""

    repository: Repository
    unpacker: Unpacker

    def folder(self, name: str, url: str) -> Path:
        """Return the folder behind a url, unpacking an archive; not for the event loop's thread.

        Raises `ModelPathError`, `ModelNotFoundError`, `ModelFilesError`, and what unpacking raises.
        """
        return self.unpacked(name, self.repository.resolve(name, url))

    def unpacked(self, name: str, path: Path) -> Path:
        """Return the folder of what the repository has found, as `folder` does."""
        try:
            if path.is_dir():
                self.repository.check_links(name, path)
            return self.unpacker.folder(path)
        except OSError as error:
            raise ModelFilesError(name, error) from error
