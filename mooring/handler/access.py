"""Which of a model's files this process may not read. Asked only when something has failed: a load that succeeds pays
nothing for it, and a file that nobody needs keeps no model from being served.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UnreadableModelError


@contextmanager
def denials_named(root: Path, files: Iterable[Path] = ()) -> Iterator[None]:
    """Let what the block raises pass, unless the reason is a file below `root` that may not be read.

    Such a file is one that an error of the block names, or one of `files`: libraries that read weights by themselves
    report anything from "no such file" to "system error 13". Then all that may not be read are named at once, by
    `UnreadableModelError`. `root` may be a file, too.
    """
    try:
        yield
    except Exception as error:
        if any(_is_denied(root, path) for path in (*files, *_refused(error))):
            raise UnreadableModelError(root, sorted(unreadable(root))) from error
        raise


def unreadable(root: Path) -> Iterator[Path]:
    """Return the files and folders from `root` down that this process may not read."""
    if not _may_read(root):
        yield root
    for folder, folders, files in os.walk(root):
        yield from (path for path in (Path(folder, name) for name in (*folders, *files)) if not _may_read(path))


def _is_denied(root: Path, path: Path) -> bool:
    """Whether something between the root and a path below it, both included, may not be read."""
    if not path.is_relative_to(root):
        return False
    way = [path, *path.parents]
    return any(not _may_read(step) for step in way[way.index(root) :: -1])


def _may_read(path: Path) -> bool:
    """Whether a path may be read; one that is not there may."""
    try:
        mode = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
        return os.access(path, mode) or not path.exists()
    except PermissionError:  # a folder above, which says so itself
        return True


def _refused(error: BaseException | None) -> Iterator[Path]:
    """Return the files whose refusal led to an error."""
    while error is not None:
        if isinstance(error, PermissionError) and isinstance(error.filename, (str, bytes)):
            yield Path(os.fsdecode(error.filename))
        error = error.__cause__ or error.__context__
