"""What a training job runs: a Python script, a module, or a command. Finds it; `plan.py` decides how to run it."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mooring.artifact.archive import extract
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import UserCodeError

logger = logging.getLogger(__name__)

PROGRAM_VARIABLE = "MOORING_PROGRAM"
# Programs that need no code of the user's, by the name that MOORING_PROGRAM gives.
PROGRAMS = {"image-classification": "mooring.training.programs.image_classification"}


@dataclass(frozen=True)
class Script:
    """A Python file, run as `python file`. Its ranks may be forked."""

    path: Path


@dataclass(frozen=True)
class Module:
    """An importable module, run as `python -m name`. Its ranks may be forked."""

    name: str


@dataclass(frozen=True)
class Command:
    """Anything else that can be executed."""

    argv: tuple[str, ...]


EntryPoint = Script | Module | Command


class EntryPointError(UserCodeError):
    """What the job names to run cannot be run."""


def find_entry_point(environment: TrainingEnvironment) -> EntryPoint:
    """Return what the job runs, after putting its code where the platform expects code. Raises `EntryPointError`."""
    ready_made = environment.variables.get(PROGRAM_VARIABLE)
    if environment.program and ready_made:
        raise EntryPointError(
            f"Both SAGEMAKER_PROGRAM ({environment.program}) and {PROGRAM_VARIABLE} ({ready_made}) are set; "
            "unset the one that is not meant."
        )
    if ready_made:
        return _ready_made(ready_made)
    if not environment.program:
        raise EntryPointError(
            "There is nothing to run. Name a script of yours with the hyperparameter sagemaker_program or the variable "
            f"SAGEMAKER_PROGRAM, or set {PROGRAM_VARIABLE} to a ready-made program: {', '.join(PROGRAMS)}."
        )
    code = _fetch_code(environment)
    return _in_folder(environment.program, code)


def _ready_made(name: str) -> Module:
    if name not in PROGRAMS:
        raise EntryPointError(f'{PROGRAM_VARIABLE} is "{name}"; ready-made programs are: {", ".join(PROGRAMS)}.')
    return Module(PROGRAMS[name])


def _fetch_code(environment: TrainingEnvironment) -> Path:
    """Return the folder that holds the user's code."""
    code, given = environment.paths.code, environment.submit_directory
    if given is None or Path(given) == code:
        return code
    if given.startswith("s3://"):
        raise EntryPointError(
            f"The submit directory {given} lies in S3, which is not read yet; bake the code into {code}."
        )
    source = Path(given)
    if code.is_dir() and any(code.iterdir()):
        logger.warning("%s holds code already, so the submit directory %s is not copied", code, source)
        return code
    if source.is_dir():
        shutil.copytree(source, code, dirs_exist_ok=True)
    elif source.name.endswith((".tar.gz", ".tgz")):
        _unpack(source, code)
    elif source.is_file():
        code.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, code)
    else:
        raise EntryPointError(f"The submit directory {source} does not exist.")
    logger.info("code from %s is in %s", source, code)
    return code


def _unpack(archive: Path, code: Path) -> None:
    """Unpack into a folder that may be a mount point, onto which nothing can be renamed."""
    code.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=code) as beside:
        folder = Path(beside) / "code"
        extract(archive, folder)
        for entry in folder.iterdir():
            entry.replace(code / entry.name)


def _in_folder(program: str, code: Path) -> EntryPoint:
    path = code / program
    if not path.is_file():
        held = ", ".join(sorted(entry.name for entry in code.iterdir())) if code.is_dir() else ""
        raise EntryPointError(f"There is no {program} in {code}; it holds: {held or 'nothing'}.")
    if path.suffix == ".py":
        return Script(path)
    if path.suffix == ".sh":
        return Command(("/bin/bash", str(path)))
    return Command((str(path),))
