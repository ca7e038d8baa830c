"""The command `mooring profile`: make the report of a profile from the files that its ranks left."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from mooring.contract.debugger_config import read_profiler_config
from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError
from mooring.contract.paths import ContainerPaths

DESCRIPTION = """\
Make the report of a profile, report.html, from the files rank-….jsonl in its folder, and print what holds the run up.
A run that was killed has left its files; those of several hosts make one report when they lie in one folder.
"""
EPILOG = """\
example: mooring profile ./output/data/profile

exit codes: 0 if the report was made, 1 if there is no profile or the report cannot be written, 2 for wrong usage
"""


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    from mooring.training.profiling.report import write_report
    from mooring.training.profiling.summary import read_profile
    from mooring.training.profiling.verdict import judge

    try:
        folder = arguments.folder or _usual_folder(process_variables())
        file = write_report(folder)
        verdict = judge(read_profile(folder))
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring profile: {error}\n")
        sys.exit(1)
    sys.stdout.write("\n".join([verdict.headline, *verdict.notes, str(file)]) + "\n")


def _usual_folder(variables: Mapping[str, str]) -> Path:
    return read_profiler_config(ContainerPaths.from_variables(variables), variables).directory


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring profile",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="default: where a job of this machine leaves it"
    )
    return made
