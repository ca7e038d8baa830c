"""The user's code: fetched to where the platform expects it, with what it requires installed. Run before any rank."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mooring.artifact import requirements
from mooring.artifact.archive import extract
from mooring.artifact.requirements import REQUIREMENTS, WHEELS
from mooring.artifact.store import fetch, is_s3
from mooring.contract.environment import TrainingEnvironment

from .entry_point import EntryPointError, is_package

logger = logging.getLogger(__name__)

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def needs_preparation(environment: TrainingEnvironment) -> bool:
    """Whether there is anything to fetch or to install."""
    code = environment.paths.code
    is_elsewhere = environment.submit_directory not in (None, str(code))
    return environment.program is not None and (
        is_elsewhere or (code / REQUIREMENTS).is_file() or is_package(environment.program, code)
    )


def prepare_code(environment: TrainingEnvironment) -> None:
    """Fetch the code and install what it requires.

    Raises `EntryPointError`, `StoreError`, `UnsafeArchiveError`, `DamagedArchiveError`, `InstallError`.
    """
    assert environment.program is not None
    code = environment.paths.code
    if environment.submit_directory is not None:
        fetch_code(environment.submit_directory, code, environment.variables)
    install(environment.program, code, environment.variables)


def fetch_code(given: str, code: Path, variables: Mapping[str, str]) -> None:
    """Put code into a folder: from an archive in S3 or here, from a folder, or a single file.

    Code that an image brings along is left alone, as by the earlier toolkit, but that is said.
    """
    if Path(given) == code:
        return
    if code.is_dir() and any(code.iterdir()):
        logger.warning("%s holds code already, so the submit directory %s is not fetched", code, given)
        return
    with tempfile.TemporaryDirectory(prefix="mooring-code-") as folder:
        source = Path(given)
        if is_s3(given):
            source = Path(folder) / given.rsplit("/", 1)[-1]
            fetch(given, source, variables)
        _place(source, code)
    found = sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file())
    logger.info("code from %s: %d file(s), %s", given, len(found), ", ".join(found[:10]))


def _place(source: Path, code: Path) -> None:
    code.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, code, dirs_exist_ok=True)
    elif source.is_file() and source.name.endswith(ARCHIVES):
        _unpack(source, code)
    elif source.is_file():
        shutil.copy(source, code)
    else:
        raise EntryPointError(f"The submit directory {source} does not exist.")


def _unpack(archive: Path, code: Path) -> None:
    """Unpack into a folder that may be a mount point, onto which nothing can be renamed."""
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=code) as beside:
        folder = Path(beside) / "code"
        extract(archive, folder)
        for entry in folder.iterdir():
            entry.replace(code / entry.name)


# --- installing -------------------------------------------------------------------------------------------------------


def install(program: str, code: Path, variables: Mapping[str, str]) -> None:
    """Install the code if it is a package, and what its requirements.txt names. Raises `InstallError`."""
    wanted = [str(code)] if is_package(program, code) else []
    if (code / REQUIREMENTS).is_file():
        wanted += ["-r", str(code / REQUIREMENTS)]
    if wanted:
        requirements.install(wanted, code / WHEELS, variables)
