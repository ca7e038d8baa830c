"""The command `mooring doctor`: how a model would be served, or what a platform would make of an image."""

import argparse
import sys
import tempfile
from pathlib import Path

from mooring.artifact.archive import DamagedArchiveError, UnsafeArchiveError, extract
from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError
from mooring.handler.access import denials_named, unreadable
from mooring.handler.resolve import HandlerChoice, Isolation, choose_handler, model_root, passed_over

from .progress import Progress

DESCRIPTION = """\
Say how `serve` would serve a model: with which handler, by which rule, from which files, in a process of its own or in
a shared one. Or say of an image of this machine's Docker what a platform can do with it, and what stands in its way.
Nothing of either is imported or run; `mooring check` runs an image, and sees more.
"""
EPILOG = """\
example: mooring doctor model.tar.gz
         SAGEMAKER_PROGRAM=serve.py mooring doctor --strict ./model
         mooring doctor flowers:3

exit codes: 0 if it can be served, or an image has no problem, 1 if not, or, with --strict, if a handler script is named
but missing, 2 for wrong usage
"""
FILES_SHOWN = 20


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    variables = process_variables() | ({"MOORING_STRICT": "true"} if arguments.strict else {})
    try:
        if not arguments.path.exists():
            sys.exit(_doctor_image(str(arguments.path)))
        if arguments.path.is_dir():
            sys.stdout.write(diagnose(arguments.path, variables))
            return
        with tempfile.TemporaryDirectory(prefix="mooring-doctor-") as folder:
            with denials_named(arguments.path):
                extract(arguments.path, Path(folder) / "model")
            sys.stdout.write(diagnose(Path(folder) / "model", variables))
    except (UnsafeArchiveError, DamagedArchiveError) as error:
        sys.stderr.write(f"mooring doctor: {error}\n")
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
    made.add_argument(
        "path",
        type=Path,
        metavar="DIR|ARCHIVE|IMAGE",
        help="a model's folder, .tar.gz, .zip or .mar; or an image's name",
    )
    made.add_argument("--strict", action="store_true", help="fail where a handler script is named but missing")
    return made


def _doctor_image(name: str) -> int:
    """Say what an image is; 1 if it has problems or is not there."""
    from mooring.runner.docker import DockerError, DockerNotFoundError
    from mooring.runner.image import inspect_image
    from mooring.workbench.image_diagnosis import diagnose_image

    try:
        facts = inspect_image(name)
    except (DockerError, DockerNotFoundError) as error:
        sys.stderr.write(f"mooring doctor: there is no model at {name}, and no image of that name. {error}\n")
        return 1
    progress = Progress(sys.stderr, "read", facts.size_bytes)
    found = diagnose_image(facts, progress)
    progress.finish()
    sys.stdout.write("".join(f"{line}\n" for line in found.lines))
    return 1 if any(found.problems) else 0


def diagnose(folder: Path, variables: dict[str, str]) -> str:
    """Return in words how the model in a folder would be served. Raises what `choose_handler` raises."""
    choice = choose_handler(folder, variables)
    lines = [
        f"handler     {choice.kind.value}, because {choice.reason}",
        f"backend     {choice.backend.value}",
        f"process     {_process(choice)}",
        *_wrapping(folder),
        *([f"task        {choice.task}"] if choice.task else []),
        *([f"packages    {choice.requirements.relative_to(choice.root)}"] if choice.requirements else []),
        f"files       {_files(choice)}",
        *(f"unreadable  {file.relative_to(folder)}, for this user" for file in sorted(unreadable(folder))),
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
