"""Files and folders that appear whole or not at all: written beside their place, synced, renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` when the block ends well and is deleted when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o644)  # mkstemp's 0600 would hide it from a server that runs as somebody else
        _sync(beside)
        beside.replace(path)
        _sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def publish_folder(path: Path, *, replaces: bool = True) -> Iterator[Path]:
    """Give a folder to fill, which becomes `path` when the block ends well and is deleted when it does not.

    A folder that is there already is replaced; it stays with `replaces=False`, for folders whose name says what they
    hold: somebody may be reading it. Several processes may publish one path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield beside
        beside.chmod(0o755)
        for file in beside.rglob("*"):
            if file.is_file():
                _sync(file)
        while not _took_place(beside, path) and replaces:
            _remove(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def publish_into(directory: Path) -> Iterator[Path]:
    """Give a folder to fill, whose files move into `directory` when the block ends well; else nothing changes there.

    For a mount point, onto which nothing can be renamed. Files that have other names stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=directory) as name:
        beside = Path(name)
        yield beside
        files = [file for file in sorted(beside.rglob("*")) if file.is_file()]
        for file in files:
            _sync(file)
        for file in files:
            target = directory / file.relative_to(beside)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        _sync(directory)


@contextmanager
def publish_files(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, whose files appear in `folder` when the block ends well; when it does not, none does.

    Raises `FileExistsError` for one that is there already: nothing is replaced.
    """
    is_new = not folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent if is_new else folder))
    try:
        yield beside
        if is_new:
            beside.chmod(0o755)
            beside.rename(folder)
        else:
            _link_all(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _took_place(folder: Path, path: Path) -> bool:
    """Rename a folder to a path; returns False if another is there already."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _remove(path: Path) -> None:
    """Delete a folder that others may be about to replace, too: by its path nobody finds half of it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        path.rename(aside)
    except FileNotFoundError:
        pass  # another was quicker
    except OSError as error:
        if error.errno != errno.EXDEV:  # an overlay cannot rename the folders of its image
            raise
        shutil.rmtree(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _link_all(beside: Path, folder: Path) -> None:
    made: list[Path] = []
    try:
        for path in sorted(beside.rglob("*")):
            target = folder / path.relative_to(beside)
            if not path.is_dir():
                os.link(path, target)  # unlike a rename it fails where there is something
            elif not target.is_dir():
                target.mkdir()
            else:
                continue
            made.append(target)
    except BaseException:
        for target in reversed(made):
            target.rmdir() if target.is_dir() else target.unlink()
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
