"""The command `mooring push`: an image into ECR, where the platform pulls it from."""

import argparse
import re
import sys

from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError

DESCRIPTION = """\
Push an image to a repository in ECR: logs Docker in, tags the image and pushes it. The last line on standard output is
the address to name in an estimator or model, as `image_uri`.
"""
EPILOG = """\
Credentials and region come from where the AWS tools have theirs: AWS_PROFILE, AWS_REGION, a role of this machine.

example: mooring push flowers:3 --create --region eu-west-1
         IMAGE_URI=$(mooring push flowers --tag latest --tag "$(git rev-parse --short HEAD)" | tail -n 1)

exit codes: 0 if every tag was pushed, 1 if one was not, 2 for wrong usage, 130 if it was interrupted
"""
# What a registry takes.
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*")


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    try:
        run(arguments, process_variables().get("AWS_REGION"))
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring push: interrupted; layers that were pushed need not be again.\n")
        sys.exit(130)
    except MooringError as error:
        sys.stderr.write(f"mooring push: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring push",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("image", metavar="IMAGE", help="an image of this machine's Docker")
    made.add_argument(
        "--repository", type=_repository, metavar="NAME", help="in ECR (default: the image's name without its tag)"
    )
    made.add_argument("--region", help="of the repository (default: that of the AWS tools)")
    made.add_argument("--create", action="store_true", help="make the repository if there is none")
    made.add_argument(
        "--tag", action="append", type=_tag, metavar="T", help="may be repeated (default: the image's own tag)"
    )
    return made


def run(arguments: argparse.Namespace, region: str | None) -> None:
    """Push an image. Raises `MooringError`."""
    from mooring.workbench.push import default_repository, default_tag, push

    address = push(
        arguments.image,
        arguments.repository or default_repository(arguments.image),
        arguments.region or region,  # boto3 itself knows AWS_DEFAULT_REGION only
        arguments.tag or [default_tag(arguments.image)],
        create=arguments.create,
        on_line=sys.stderr.write,
    )
    sys.stdout.write(f"{address}\n")


def _tag(text: str) -> str:
    return _matching(TAG, text, "a tag: letters, digits, _ . and -, at most 128")


def _repository(text: str) -> str:
    return _matching(REPOSITORY, text, "a repository's name: lower-case letters and digits, with . _ - / between them")


def _matching(pattern: re.Pattern[str], text: str, expected: str) -> str:
    if not pattern.fullmatch(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not {expected}')
    return text
