"""What of a folder is worth carrying elsewhere: its files, without what tools and editors leave about.

Links are followed inside the folder, and refused where they lead out of it: what they name would not come along.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from mooring.contract.errors import UserCodeError

# Names of files and folders that nobody means to send, by who leaves them.
JUNK = {
    "what Python compiled": ("__pycache__", "*.py[co]"),
    "of version control": (".git", ".hg", ".svn"),
    "an environment of this machine": (".venv",),
    "a cache of a tool": (".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"),
    "of an editor": (".idea", ".vscode", "*~", ".*.sw[a-p]", "#*#", ".#*"),
    "of a file manager": (".DS_Store", "._*", "__MACOSX", "Thumbs.db"),
}


class UnfitFilesError(UserCodeError):
    """Files of a folder cannot go along; all are named at once."""

    def __init__(self, folder: Path, problems: Sequence[str]) -> None:
        self.folder = folder
        self.problems = tuple(problems)
        super().__init__(f"{folder} cannot be packed: {'; '.join(self.problems)}.")


@dataclass(frozen=True)
class Contents:
    """The files of a folder by their names in it, and of what is left out the reason."""

    files: Mapping[str, Path]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path, *, but: Path | None = None) -> "Contents":
        """Look through a folder. `but` is a file that is being made of it. Raises `UnfitFilesError`, `OSError`."""
        walk = _Walk(folder.resolve(), but and but.resolve())
        files = dict(sorted(walk.files(folder, "", ())))
        if walk.problems:
            raise UnfitFilesError(folder, walk.problems)
        return cls(files, dict(sorted(walk.left_out.items())))

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def junk_reason(name: str) -> str:
    """Say why a file or folder of this name is left out, nothing where it is not.

    >>> junk_reason("__pycache__"), junk_reason("model.onnx")
    ('what Python compiled', '')
    """
    return next((reason for reason, names in JUNK.items() if any(fnmatch(name, each) for each in names)), "")


class _Walk:
    def __init__(self, root: Path, but: Path | None) -> None:
        self._root = root
        self._but = but
        self.left_out: dict[str, str] = {}
        self.problems: list[str] = []

    def files(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
        """Yield the files below a folder; `above` are the real folders on the way down, this one left out."""
        way = (*above, folder.resolve())
        for path in sorted(folder.iterdir()):
            name = prefix + path.name
            if reason := junk_reason(path.name):
                self.left_out[name] = reason
            elif path.resolve() == self._but:
                self.left_out[name] = "it is what is being made"
            elif problem := self._problem(path, way):
                self.problems.append(f"{name} {problem}")
            elif path.is_dir():
                yield from self.files(path, f"{name}/", way)
            else:
                yield name, path

    def _problem(self, path: Path, way: tuple[Path, ...]) -> str:
        if "\\" in path.name:
            return "has a backslash in its name, which some systems take for a folder"
        if path.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(self._root):
                return f"is a link out of the folder, to {target}; put a copy in its place (cp -RL makes one of all)"
            if not target.exists():
                return f"is a link to {path.readlink()}, which is not there"
            if target in way:
                return "is a link to a folder that it lies in"
        mode = path.stat().st_mode
        return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is neither a file nor a folder"
