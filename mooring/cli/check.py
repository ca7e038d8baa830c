"""The command `mooring check`: what an image keeps of the platform's contract, tried by running it."""

import argparse
import mimetypes
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mooring.contract.environment import process_variables
from mooring.contract.errors import MooringError

from .run_options import channel, existing, folder, hyperparameters, memory, seconds, variable, variables

if TYPE_CHECKING:
    from mooring.workbench.conformance.report import Report
    from mooring.workbench.conformance.row import Result, Row
    from mooring.workbench.conformance.subject import Given, Subject

DESCRIPTION = """\
Try whether an image, ours or anybody's, does what the platform asks of it: what it is started with, training jobs, a
server of one model, a server of many. Each row passes, fails or is not applicable, with the reason and the line of the
contract it comes from. Without an image, the installed package is tried, as processes of this machine.

An image with Mooring in it is tried with a model and scripts of ours. Any other is tried with what it brings and with
what is given here; rows that need more say so. Scripts are tried with every image that trains.
"""
EPILOG = """\
example: mooring check flowers:3
         mooring check flowers:3 --model model.tar.gz --request row.csv --content-type text/csv
         mooring check flowers:3 --only training --channel train=data/train --hyperparameters epochs=1
         mooring check flowers:3 --format junit --output report.xml

exit codes: 0 if no row failed, 1 if one did or nothing could be tried, 2 for wrong usage, 130 if it was interrupted
(the report holds what was found by then)
"""
UNKNOWN_TYPE = "application/octet-stream"


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    try:
        sys.exit(run(arguments))
    except ValueError as error:
        parser().error(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring check: interrupted before any row was tried.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring check: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    from mooring.workbench.conformance.report import FORMATS
    from mooring.workbench.conformance.row import Part
    from mooring.workbench.conformance.subject import Given

    default = Given()
    made = argparse.ArgumentParser(
        prog="mooring check",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("image", nargs="?", default="", metavar="IMAGE", help="what is tried; pulled if it is not here")
    made.add_argument(
        "--only", action="append", default=[], choices=[part.value for part in Part], help="a part; may be repeated"
    )
    made.add_argument("--list", action="store_true", help="print the rows and their lines of the contract, try nothing")
    report = made.add_argument_group("report")
    report.add_argument("--format", choices=list(FORMATS), default="text", help="default text")
    report.add_argument("--output", type=Path, metavar="FILE", help="where it goes (default: standard output)")
    serving = made.add_argument_group("to serve")
    serving.add_argument("--model", type=existing, metavar="DIR|ARCHIVE", help="a model that the image serves")
    serving.add_argument("--request", type=existing, metavar="FILE", help="a request that the model answers")
    serving.add_argument("--content-type", metavar="TYPE", help="the request's (default: by the file's name)")
    training = made.add_argument_group("to train")
    training.add_argument("--code", type=folder, metavar="DIR", help="what the job finds in /opt/ml/code")
    training.add_argument("--program", metavar="FILE", help="the script in it (default train.py)")
    training.add_argument(
        "--channel", action="append", default=[], type=channel, metavar="NAME=DIR", help="input data; may be repeated"
    )
    training.add_argument(
        "--hyperparameters", nargs="+", action="extend", default=[], metavar="K=V|FILE", help="the job's"
    )
    made.add_argument(
        "--env", action="append", default=[], type=variable, metavar="NAME[=VALUE]", help="a variable; may be repeated"
    )
    made.add_argument(
        "--timeout",
        type=seconds,
        default=default.timeout_seconds,
        metavar="SECONDS",
        help=f"for a server to become healthy, and for a job (default {default.timeout_seconds:g})",
    )
    made.add_argument(
        "--memory",
        type=memory,
        default=default.memory,
        metavar="SIZE",
        help=f"limit to keep to (default {default.memory})",
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Try an image, report, and return the exit code. Raises `MooringError` where nothing can be tried."""
    from mooring.workbench.conformance.examine import rows_of
    from mooring.workbench.conformance.image import INSTALLED, read_image
    from mooring.workbench.conformance.report import listed
    from mooring.workbench.conformance.subject import Subject

    given = _given(arguments, process_variables())
    rows = rows_of(given.only)
    if arguments.list:
        sys.stdout.write(listed(rows))
        return 0
    with _interrupted_by_sigterm(), _folder() as place:
        facts = read_image(arguments.image, sys.stderr.write) if arguments.image else INSTALLED
        subject = Subject(arguments.image, facts, given, place)
        subject.check()
        report, was_interrupted = _tried(subject, rows)
    _write(report, arguments)
    if was_interrupted:
        sys.stderr.write(f"\nmooring check: interrupted; {len(rows) - len(report.results)} rows were not tried.\n")
        return 130
    return 1 if report.has_failed else 0


def _given(arguments: argparse.Namespace, here: Mapping[str, str]) -> "Given":
    from mooring.workbench.conformance.row import Part
    from mooring.workbench.conformance.samples import Request
    from mooring.workbench.conformance.subject import Given

    if arguments.content_type and arguments.request is None:
        raise ValueError("--content-type is that of a request; give the request with --request")
    request = None
    if arguments.request is not None:
        kind = arguments.content_type or mimetypes.guess_type(arguments.request)[0] or UNKNOWN_TYPE
        request = Request(arguments.request.read_bytes(), kind)
    return Given(
        arguments.model,
        request,
        arguments.code,
        arguments.program,
        hyperparameters(arguments.hyperparameters),
        dict(arguments.channel),
        variables(arguments.env, here),
        frozenset(map(Part, arguments.only)),
        arguments.timeout,
        arguments.memory,
    )


def _tried(subject: "Subject", rows: "list[Row]") -> "tuple[Report, bool]":
    """Try rows, telling of each on standard error; an interruption ends that, and leaves what was found."""
    from mooring.workbench.conformance.bench import Bench
    from mooring.workbench.conformance.examine import examine
    from mooring.workbench.conformance.report import Report, told

    results: list[Result] = []
    try:
        with Bench.of(subject) as bench:
            for result in examine(bench, rows, _announce):
                results.append(result)
                sys.stderr.write(f"{_clear()}{told(result)}\n")
    except KeyboardInterrupt:
        return Report(subject.image, results), True
    return Report(subject.image, results), False


def _announce(row: "Row") -> None:
    """Say on a terminal which row is being tried; in a log its outcome is enough."""
    if sys.stderr.isatty():
        sys.stderr.write(f"...   {row.id}")
        sys.stderr.flush()


def _clear() -> str:
    return "\r\033[K" if sys.stderr.isatty() else ""


def _write(report: "Report", arguments: argparse.Namespace) -> None:
    from mooring.artifact.publish import publish_file
    from mooring.workbench.conformance.report import FORMATS

    text = FORMATS[arguments.format](report)
    if arguments.output is None:
        sys.stdout.write(text)
        return
    with publish_file(arguments.output) as beside:
        beside.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{report.summary}.\n")
    sys.stdout.write(f"{arguments.output}\n")


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder that is removed, as far as what containers wrote in it lets us."""
    with tempfile.TemporaryDirectory(prefix="mooring-check-", ignore_cleanup_errors=True) as name:
        yield Path(name)
    if Path(name).exists():
        sys.stderr.write(f"mooring check: {name} holds files of somebody else; remove it when you like.\n")


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM be what Ctrl-C is, so that no container is left running."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
