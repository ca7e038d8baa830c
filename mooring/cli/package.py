"""The command `mooring package`: a model's folder becomes the archive that an endpoint's model data is."""

import argparse
import sys
from pathlib import Path

from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError

from .doctor import diagnose
from .progress import Progress

DESCRIPTION = """\
Make a model.tar.gz of a model's folder, after looking whether it could be served (as `mooring doctor` does). The same
files give the same archive, byte for byte. What editors, version control and Python leave about is left out, and named.
Links are followed inside the folder; one that leads out of it is refused.
"""
EPILOG = """\
example: mooring package ./model
         mooring package ./model -o s3://bucket/flowers/model.tar.gz
         mooring package ./model --check

exit codes: 0 if it was written (or could be, with --check), 1 if the folder cannot be served or packed or the archive
cannot be written, 2 for wrong usage, 130 if it was interrupted
"""
DEFAULT_OUTPUT = "model.tar.gz"


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    if not arguments.folder.is_dir():
        parser().error(f"there is no folder {arguments.folder}")
    try:
        run(arguments, process_variables())
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring package: interrupted; nothing was written.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring package: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring package",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folder", type=Path, metavar="DIR", help="the model's folder")
    made.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default=DEFAULT_OUTPUT,
        help=f"where the archive goes: a path, or s3://bucket/key (default {DEFAULT_OUTPUT})",
    )
    made.add_argument("--check", action="store_true", help="say what would be packed and how served; write nothing")
    return made


def run(arguments: argparse.Namespace, variables: dict[str, str]) -> None:
    """Package a folder. Raises `MooringError` and `OSError`."""
    from mooring.workbench.package import package, plan_package

    plan = plan_package(arguments.folder, arguments.output, variables)
    sys.stdout.write(diagnose(arguments.folder, variables))
    for name, reason in plan.contents.left_out.items():
        sys.stdout.write(f"left out    {name}: {reason}\n")
    count, size = len(plan.contents.files), plan.contents.total_bytes
    if arguments.check:
        sys.stdout.write(f"would pack  {count} files, {size:,} bytes\n")
        return
    progress = Progress(sys.stderr, "packed", size)
    written = package(plan, variables, progress)
    progress.finish()
    sys.stdout.write(f"packed      {count} files, {size:,} bytes, into {written:,} at {arguments.output}\n")
