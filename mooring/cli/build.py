"""The command `mooring build`: the images of Mooring, or of a project that starts from one."""

import argparse
import shlex
import sys
from pathlib import Path

from mooring.contract.errors import MooringError

DESCRIPTION = """\
Build an image. In a project (a folder with a Dockerfile, as `mooring init` writes it) that project's, from the image of
ours that --cpu or --gpu and --target name. In a checkout or unpacked source distribution of Mooring, that image itself.
"""
EPILOG = """\
Images of ours are called mooring:cpu, mooring:cpu-inference, mooring:cpu-inference-mms (multi-model-server), and gpu in
place of cpu; a project's has the name of its folder. The last line on standard output is the name.

example: mooring build --source ~/mooring --cpu && mooring build
         mooring build --gpu --tag flowers:3 -- --no-cache --platform linux/amd64

exit codes: 0 if the image was built, 1 if it was not, 2 for wrong usage, 130 if it was interrupted
"""


def main() -> None:
    """Run the command with the process's arguments."""
    arguments = parser().parse_args()
    try:
        run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring build: interrupted; layers that were built need not be again.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring build: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    from mooring.workbench.build import DEVICES, TARGETS

    made = argparse.ArgumentParser(
        prog="mooring build",
        usage="%(prog)s [options] [-- DOCKER OPTIONS]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    device = made.add_mutually_exclusive_group()
    for name in DEVICES:
        device.add_argument(
            f"--{name}", dest="device", action="store_const", const=name, help=f"for {name.upper()}s (default cpu)"
        )
    made.set_defaults(device=DEVICES[0])
    made.add_argument(
        "--target", choices=TARGETS, default=TARGETS[0], help="training also serves (default); the others only serve"
    )
    made.add_argument("--tag", metavar="NAME[:TAG]", help="what the image is called")
    made.add_argument("--source", type=Path, default=Path(), metavar="DIR", help="what is built (default: this folder)")
    made.add_argument("--dry-run", action="store_true", help="print what Docker would be asked, and do nothing")
    made.add_argument("extra", nargs="*", metavar="DOCKER OPTIONS", help="after --, for `docker build`")
    return made


def run(arguments: argparse.Namespace) -> None:
    """Build an image. Raises `MooringError`."""
    from mooring.runner.docker import DockerError, ask
    from mooring.workbench.build import plan_build

    plan = plan_build(arguments.source, arguments.device, arguments.target, arguments.tag, arguments.extra)
    if arguments.dry_run:
        sys.stdout.write(f"{shlex.join(plan.command)}\n")
        return
    try:
        ask(plan.command, sys.stderr.write)
    except DockerError:
        if plan.base is not None:
            sys.stderr.write(
                f"mooring build: it starts from {plan.base}. If there is no such image, build it from a checkout of "
                f"Mooring: mooring build --source DIR --{arguments.device} --target {arguments.target}\n"
            )
        raise
    sys.stdout.write(f"{plan.tag}\n")
