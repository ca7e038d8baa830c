"""The command `mooring supervise`: the first process of a container that the platform starts with bash."""

import argparse
import logging
import sys

from mooring.contract.environment import LOG_FORMAT, log_level, process_variables
from mooring.contract.errors import MooringError

DESCRIPTION = """\
Run a command as the first process of a container should: signals reach the processes that train, orphans are reaped,
the exit code is the command's own, and nothing is left running.

SDK v3 starts a container with bash, which passes no signal on. Our images put this in its place by themselves (see
docker/bash_env.sh); nobody needs to call it.

  mooring supervise -- /bin/bash -c 'python train.py'
"""


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    from mooring.training.first_process import supervise

    variables = process_variables()
    logging.basicConfig(level=log_level(variables), format=LOG_FORMAT, stream=sys.stderr)
    try:
        sys.exit(supervise(arguments.command, variables))
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring supervise: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring supervise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("command", nargs="+", help="what to run, and its arguments")
    return made
