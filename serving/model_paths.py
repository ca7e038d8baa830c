"""Where a load may take a model from: below one root, as a folder or an archive, and from nowhere else."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from .errors import ModelFilesError
from .repository import Repository, Unpacker


@dataclass(frozen=True)
class ModelPaths:
    """Turns the url of a load request into a folder on disk."""

    repository: Repository
    unpacker: Unpacker

    async def folder(self, name: str, url: str) -> Path:
        """Return the folder behind a url, unpacking an archive; off the event loop.

        Raises `ModelPathError`, `ModelNotFoundError`, `ModelFilesError`, and what unpacking raises.
        """
        return await asyncio.to_thread(self._folder, name, url)

    def _folder(self, name: str, url: str) -> Path:
        path = self.repository.resolve(name, url)
        try:
            if path.is_dir():
                self.repository.check_links(name, path)
            return self.unpacker.folder(path)
        except OSError as error:
            raise ModelFilesError(name, error) from error
