"""What a training job runs: a Python script, a module, a function or a command. Looks for it; starts nothing."""

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import UserCodeError

from .algorithm import choose_program

MODULE_FLAG = "-m "


@dataclass(frozen=True)
class Script:
    """A Python file, run as `python file`. Its ranks may be forked."""

    path: Path

    def __str__(self) -> str:
        return f"python {self.path}"


@dataclass(frozen=True)
class Module:
    """An importable module, run as `python -m name`. Its ranks may be forked."""

    name: str

    def __str__(self) -> str:
        return f"python -m {self.name}"


@dataclass(frozen=True)
class Function:
    """A function without arguments, of a framework that brings its own launcher: SAGEMAKER_TRAINING_MODULE."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclass(frozen=True)
class Command:
    """Anything else that can be executed."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.argv)


EntryPoint = Script | Module | Function | Command


def as_command(entry_point: EntryPoint) -> Command:
    """Return the command that runs an entry point in an interpreter of its own."""
    python = (sys.executable, "-u")
    if isinstance(entry_point, Command):
        return entry_point
    if isinstance(entry_point, Script):
        return Command((*python, str(entry_point.path)))
    if isinstance(entry_point, Module):
        return Command((*python, "-m", entry_point.name))
    return Command((*python, "-c", f"from {entry_point.module} import {entry_point.name} as run; run()"))


class EntryPointError(UserCodeError):
    """What the job names to run cannot be run."""


def find_entry_point(environment: TrainingEnvironment) -> EntryPoint:
    """Return what the job runs. The user's code lies where `prepare_code` has put it.

    Raises `EntryPointError`, `AlgorithmError`.
    """
    choice = choose_program(environment)
    if choice is not None:
        return Module(choice.program.module)
    if environment.training_module:
        return _function(environment.training_module)
    assert environment.program is not None
    return _in_folder(environment.program, environment.paths.code)


def _function(named: str) -> Function:
    module, separator, name = named.partition(":")
    if not module or not separator or not name:
        raise EntryPointError(f'SAGEMAKER_TRAINING_MODULE is "{named}"; expected package.module:function.')
    return Function(module, name)


def _in_folder(program: str, code: Path) -> EntryPoint:
    """Tell by the name, and by what lies in the folder, how a program is run."""
    if program.startswith(MODULE_FLAG):
        return Module(program.removeprefix(MODULE_FLAG).strip())
    path = code / program
    if is_package(program, code):
        return Module(program.removesuffix(".py").replace("/", "."))
    if path.is_file():
        if path.suffix == ".py":
            return Script(path)
        return Command(("/bin/bash", str(path))) if path.suffix == ".sh" else Command((str(path),))
    return _on_path(program, code)


def is_package(program: str, code: Path) -> bool:
    """Whether the code is to be installed, and its program run as a module of it.

    As the earlier toolkit decides: by setup.py. A pyproject.toml is often there for a linter's sake, so it counts only
    if it describes a project and the program is not simply a file that lies there.
    """
    if " " in program or Path(program).suffix not in ("", ".py"):
        return False
    if (code / "setup.py").is_file():
        return True
    description = code / "pyproject.toml"
    return description.is_file() and "[project]" in description.read_text("utf-8") and not (code / program).is_file()


def _on_path(program: str, code: Path) -> Command:
    """Return a command line whose first word can be executed."""
    words = shlex.split(program)
    found = words and (shutil.which(words[0]) or shutil.which(words[0], path=str(code)))
    if found and len(words) > 1:  # one word that is no file is more likely a file that was forgotten
        return Command((found, *words[1:]))
    held = ", ".join(sorted(entry.name for entry in code.iterdir())) if code.is_dir() else ""
    raise EntryPointError(
        f"There is no {program} in {code}; it holds: {held or 'nothing'}. "
        "Give a file's name, `-m module`, or a command with its arguments."
    )
