"""Where a load may take a model from: below one root, as a folder or an archive, and from nowhere else."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from .repository import Repository, Unpacker


@dataclass(frozen=True)
class ModelPaths:
    """Turns the url of a load request into a folder on disk."""

    repository: Repository
    unpacker: Unpacker

    async def folder(self, name: str, url: str) -> Path:
        """Return the folder behind a url, unpacking an archive off the event loop.

        Raises `ModelPathError`, `ModelNotFoundError`, and what unpacking raises.
        """
        path = self.repository.resolve(name, url)
        return path if path.is_dir() else await asyncio.to_thread(self.unpacker.folder, path)
