"""A new project: which files it has, from the templates beside this module, and how they come to lie in a folder.

A file that is there already is never written over, and a failure leaves nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mooring.artifact.publish import publish_files
from mooring.contract.errors import MooringError, SettingError

TEMPLATES = Path(__file__).parent / "templates"
# A file of a later part takes the place of an earlier one's; only the README goes on.
README = "README.md"
# Build tools pass hidden files over, so this one is called so only where it is used.
HIDDEN = {"dockerignore": ".dockerignore"}
NAME_IN_TEMPLATES = "PROJECT_NAME"
# What Docker takes as the name of an image.
NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


class Kind(Enum):
    """What a project does."""

    TRAIN = "train"
    SERVE = "serve"
    BOTH = "both"


PARTS = {
    Kind.TRAIN: ("project", "train"),
    Kind.SERVE: ("project", "serve"),
    Kind.BOTH: ("project", "serve", "train"),
}


class ProjectExistsError(MooringError):
    """Files of a new project are there already."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = tuple(names)
        super().__init__(
            f"{folder} has these files already, so nothing is written: {', '.join(self.names)}. "
            "Move them away, or name another folder."
        )


@dataclass(frozen=True)
class Project:
    """A project to be made: its folder, its name, its kind."""

    folder: Path
    name: str
    kind: Kind

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise SettingError(
                "--name", self.name, "lower-case letters, digits, and single . _ - between them, as an image's name has"
            )

    def files(self) -> dict[str, bytes]:
        """Return the content of each file by its path in the project."""
        found: dict[str, bytes] = {}
        for part in PARTS[self.kind]:
            for template in _files(TEMPLATES / part):
                path = str(template.relative_to(TEMPLATES / part))
                begins = found.get(path, b"") if path == README else b""
                content = template.read_bytes().replace(NAME_IN_TEMPLATES.encode(), self.name.encode())
                found[HIDDEN.get(path, path)] = begins + content
        return found

    def write(self) -> list[str]:
        """Write all files or none, and return their paths in the folder. Raises `ProjectExistsError`, `OSError`."""
        files = self.files()
        there = [name for name in sorted(files) if _is_there(self.folder / name)]
        if there:
            raise ProjectExistsError(self.folder, there)
        with publish_files(self.folder) as beside:
            _fill(beside, files)
        return sorted(files)


def suggested_name(folder: Path) -> str:
    """Return a name that is made of a folder's.

    >>> suggested_name(Path("/home/me/My Model!"))
    'my-model'
    """
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "project"


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
