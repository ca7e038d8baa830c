"""The command `mooring doctor`: say how a model folder or archive would be served, and why, without loading it."""

import argparse
import sys
import tempfile
from pathlib import Path

from mooring.artifact.archive import DamagedArchiveError, UnsafeArchiveError, extract
from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError
from mooring.handler.resolve import HandlerChoice, Isolation, choose_handler, model_root, passed_over

DESCRIPTION = """\
Say how `serve` would serve a model: with which handler, by which rule, from which files, in a process of its own or in
a shared one. Nothing of the model is imported or run.
"""
EPILOG = """\
example: mooring doctor model.tar.gz
         SAGEMAKER_PROGRAM=serve.py mooring doctor --strict ./model

exit codes: 0 if it can be served, 1 if it cannot, or, with --strict, if a handler script is named but missing,
2 for wrong usage
"""
FILES_SHOWN = 20


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    variables = process_variables() | ({"MOORING_STRICT": "true"} if arguments.strict else {})
    try:
        if arguments.path.is_dir():
            sys.stdout.write(diagnose(arguments.path, variables))
            return
        with tempfile.TemporaryDirectory(prefix="mooring-doctor-") as folder:
            extract(arguments.path, Path(folder) / "model")
            sys.stdout.write(diagnose(Path(folder) / "model", variables))
    except (UnsafeArchiveError, DamagedArchiveError) as error:
        sys.stderr.write(f"mooring doctor: {error}\n")
        sys.exit(1)
    except FileNotFoundError:
        sys.stderr.write(f"mooring doctor: there is nothing at {arguments.path}\n")
        sys.exit(1)
    except MooringError as error:
        sys.stderr.write(f"mooring doctor: it cannot be served. {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring doctor",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("path", type=Path, metavar="DIR|ARCHIVE", help="a model's folder, .tar.gz, .zip or .mar")
    made.add_argument("--strict", action="store_true", help="fail where a handler script is named but missing")
    return made


def diagnose(folder: Path, variables: dict[str, str]) -> str:
    """Return in words how the model in a folder would be served. Raises `ModelFolderError`, `ModelConfigError`."""
    choice = choose_handler(folder, variables)
    lines = [
        f"handler     {choice.kind.value}, because {choice.reason}",
        f"backend     {choice.backend.value}",
        f"process     {_process(choice)}",
        *_wrapping(folder),
        *([f"task        {choice.task}"] if choice.task else []),
        *([f"packages    {choice.requirements.relative_to(choice.root)}"] if choice.requirements else []),
        f"files       {_files(choice)}",
        *(f"passed over {reason}" for reason in passed_over(choice, variables)),
    ]
    return "\n".join(lines) + "\n"


def _process(choice: HandlerChoice) -> str:
    if choice.isolation is Isolation.OWN:
        return "its own: it brings code, or a format whose operators can touch files"
    return "shared with other models that are only data"


def _wrapping(folder: Path) -> list[str]:
    root = model_root(folder)
    if root == folder:
        return []
    return [f"wrapped     everything lies in the folder {root.name}/, which is looked through"]


def _files(choice: HandlerChoice) -> str:
    names = [str(file.relative_to(choice.root)) for file in choice.files if file.is_relative_to(choice.root)]
    shown = ", ".join(names[:FILES_SHOWN])
    more = f" and {len(names) - FILES_SHOWN} more" if len(names) > FILES_SHOWN else ""
    return f"{shown}{more}, {choice.artifact_bytes:,} bytes"
