"""The command `mooring init`: a new project, in a folder."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.contract.errors import MooringError, SettingError

if TYPE_CHECKING:
    from mooring.workbench.project import Project

DESCRIPTION = """\
Write a new project: a training script that goes on where it was stopped, a handler, a Dockerfile of two lines, tests
that pass at once. On a terminal it asks for what is not given.
"""
EPILOG = """\
example: mooring init flowers --kind both
         cd flowers && python -m pytest

Nothing is ever written over; where a file is there already, nothing is written at all.

exit codes: 0 if the project was written, 1 if files are there already or cannot be written, 2 for wrong usage,
130 if it was interrupted
"""
KINDS = ("both", "train", "serve")


def main() -> None:
    """Run the command with the process's arguments."""
    arguments = parser().parse_args()
    try:
        project = _project(arguments, is_terminal=sys.stdin.isatty() and not arguments.yes)
        names = project.write()
    except SettingError as error:
        parser().error(str(error))
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring init: {error}\n")
        sys.exit(1)
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write("\nmooring init: interrupted; nothing was written.\n")
        sys.exit(130)
    shown = arguments.folder
    sys.stdout.write("".join(f"{shown / name}\n" for name in names))
    sys.stderr.write(f"\nTry it: {'' if shown == Path() else f'cd {shown} && '}python -m pytest\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring init",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where it goes (default: this folder)"
    )
    made.add_argument("--name", help="of the project and its image (default: the folder's)")
    made.add_argument("--kind", choices=KINDS, help=f"what it does (default {KINDS[0]})")
    made.add_argument("--yes", action="store_true", help="ask nothing: what is not given has its default")
    return made


def _project(arguments: argparse.Namespace, *, is_terminal: bool) -> "Project":
    from mooring.workbench.project import Kind, Project, suggested_name

    if not is_terminal and not arguments.yes and not (arguments.name and arguments.kind):
        parser().error("there is no terminal to ask on; give --name and --kind, or --yes for what they are by default")
    suggested = suggested_name(arguments.folder)
    name = arguments.name or (_asked("Name", suggested) if is_terminal else suggested)
    Project(arguments.folder, name, Kind.BOTH)  # a name that cannot be used is told before more is asked
    kind = arguments.kind or (_asked("Kind (both, train or serve)", KINDS[0]) if is_terminal else KINDS[0])
    if kind not in KINDS:
        raise SettingError("--kind", kind, " or ".join(KINDS))
    return Project(arguments.folder, name, Kind(kind))


def _asked(question: str, default: str) -> str:
    sys.stderr.write(f"{question} [{default}]: ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise EOFError
    return answer.strip() or default
