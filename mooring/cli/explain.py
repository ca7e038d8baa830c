"""The command `mooring explain`: what `train` would do, without doing it."""

import argparse
import json
import sys

from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError

DESCRIPTION = """\
Print the launch plan of the training job that /opt/ml/input/config describes: what runs with which arguments, the
hosts, ranks and devices, and the variables that each rank gets. Secrets are masked. Nothing is fetched, installed or
started.

  SAGEMAKER_BASE_DIR=/tmp/ml mooring explain --json
"""


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    from mooring.training.explain import explain, in_words

    try:
        plan = explain(process_variables())
    except MooringError as error:
        sys.stderr.write(f"mooring explain: {error}\n")
        sys.exit(1)
    sys.stdout.write(json.dumps(plan, indent=2, default=str) + "\n" if arguments.json else in_words(plan))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring explain", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made
