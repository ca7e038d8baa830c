"""The command `mooring transform`: files in, files out, as the platform's batch transform does it."""

import argparse
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from mooring.contract.errors import MooringError, UserCodeError
from mooring.runner.parentage import die_with

DESCRIPTION = """\
Send every file of a folder to a model, and write what it answers to OUTPUT, as NAME.out, in the same folders.

Files are cut into records, and sent one by one or as many at once as fit into the payload. An output appears whole or
not at all; a job that was stopped goes on with the files that have none when it is started again.
"""
EPILOG = """\
How fast requests come is what these options say, else what the server says at /execution-parameters, else one request
at a time, of several records, of 6 MB at most. A request that fails with 429, 5xx or a broken connection is sent again
after a pause; any other failure fails its file, and the other files go on.

example: mooring transform --model ./model --input ./rows --output ./answers --split line --assemble line
         mooring transform --url http://127.0.0.1:8080/models/resnet/invoke --input ./photos --output ./labels

exit codes: 0 if every file has its output, 1 if one failed or the model cannot be reached or served,
2 for wrong usage, 130 if it was interrupted
"""
Number = TypeVar("Number", int, float)

SERVE = "from mooring.cli.serve import main; main()"
# What is under way at the server is answered or given up before this.
STOP_SECONDS = 40
POLL_SECONDS = 0.05
TERMINAL_SECONDS = 0.2
LOG_SECONDS = 10.0
MEGABYTE = 1 << 20


class ModelNotServedError(UserCodeError):
    """The server that was started for a model ended."""

    def __init__(self, model: Path) -> None:
        super().__init__(f"{model} cannot be served; the lines above say why.")


def main() -> None:
    """Run the command with the process's arguments."""
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("\nmooring transform: interrupted; files that are done have their outputs.\n")
        sys.exit(130)
    except (MooringError, OSError) as error:
        sys.stderr.write(f"mooring transform: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="mooring transform",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--input", type=Path, required=True, metavar="FILE|DIR", help="what to send")
    made.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the answers go")
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", type=Path, metavar="DIR|ARCHIVE", help="serve this model for as long as it takes")
    where.add_argument("--url", help="a server that runs, or the path of one of its models")
    made.add_argument("--overwrite", action="store_true", help="also do files that have an output")
    what = made.add_argument_group("requests")
    what.add_argument("--content-type", metavar="TYPE", help="what the files are (default: by their suffixes)")
    what.add_argument("--accept", metavar="TYPE", help="what the answers should be (default: the server's choice)")
    what.add_argument(
        "--split", choices=["none", "line", "recordio"], default="none", help="what ends a record (default none)"
    )
    what.add_argument(
        "--assemble", choices=["none", "line"], default="none", help="what stands between answers (default none)"
    )
    pace = made.add_argument_group("pace")
    pace.add_argument("--strategy", choices=["multi", "single"], help="records in a request: as many as fit, or one")
    pace.add_argument("--max-payload-mb", type=_megabytes, metavar="N", help="the largest request; 0 for no limit")
    pace.add_argument("--concurrency", type=_positive, metavar="N", help="requests at the same time")
    pace.add_argument("--retries", type=_count, default=3, metavar="N", help="for each request (default 3)")
    pace.add_argument(
        "--timeout", type=_seconds, default=600.0, metavar="SECONDS", help="for each request (default 600)"
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    """Do the job; returns the exit code. Raises `MooringError`, and `OSError` for outputs that cannot be written."""
    from mooring.serving.transform import find_tasks

    for option, path in (("--input", arguments.input), ("--model", arguments.model)):
        if path is not None and not path.exists():
            parser().error(f"{option}: there is nothing at {path}")
    tasks, skipped = find_tasks(arguments.input, arguments.output, overwrite=arguments.overwrite)
    if skipped:
        sys.stderr.write(f"{skipped} files have their outputs already; --overwrite does them again.\n")
    if not tasks:
        sys.stderr.write("There is nothing to do.\n")
        return 0
    if arguments.url:
        return _transform(arguments, tasks, arguments.url)
    with served(arguments.model, arguments.timeout, _payload_bytes(arguments)) as url:
        return _transform(arguments, tasks, url)


def _payload_bytes(arguments: argparse.Namespace) -> int | None:
    """Return the size of the largest request, 0 for no limit, None where nobody said."""
    given = arguments.max_payload_mb
    return None if given is None else math.ceil(given * MEGABYTE)


def _transform(arguments: argparse.Namespace, tasks: list[Any], url: str) -> int:
    from mooring.serving.model_client import ModelClient
    from mooring.serving.records import Split, Strategy
    from mooring.serving.transform import Pace, TransformTerms, pace_of, transform

    payload_bytes = _payload_bytes(arguments)
    with ModelClient(url, arguments.timeout) as client:
        asked = pace_of(client)
        pace = Pace(
            arguments.concurrency or asked.concurrency,
            Strategy(arguments.strategy) if arguments.strategy else asked.strategy,
            asked.most_bytes if payload_bytes is None else payload_bytes,
        )
        terms = TransformTerms(
            arguments.content_type,
            arguments.accept,
            Split(arguments.split),
            ends_lines=arguments.assemble == "line",
            retries=arguments.retries,
            pace=pace,
        )
        report = Report(sys.stderr)
        progress = transform(tasks, client, terms, report)
    report.finish(progress)
    return 1 if progress.failures else 0


@contextmanager
def served(model: Path, timeout_s: float, payload_bytes: int | None) -> Iterator[str]:
    """Serve a model on a free port of this machine, and give its URL; the server ends with the block, or with us.

    It takes requests of `payload_bytes`: as large as it can for 0, its default for None.

    Raises `ModelNotServedError`.
    """
    from mooring.serving.model_client import ModelClient

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"--model": model.resolve(), "--port": port, "--response-seconds": timeout_s, "--log-level": 30}
    if payload_bytes is not None:
        options["--max-body-bytes"] = payload_bytes
    command = [sys.executable, "-P", "-c", SERVE, *(str(each) for option in options.items() for each in option)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,  # Ctrl-C is for us, who stop it when the last answer is in
        preexec_fn=partial(die_with, os.getpid()),
    )
    try:
        with ModelClient(f"http://127.0.0.1:{port}", timeout_s) as client:
            while not _is_ready(client):
                if process.poll() is not None:
                    raise ModelNotServedError(model)
                time.sleep(POLL_SECONDS)
        yield client.address
    except BaseException:
        process.kill()  # whatever is under way there, nobody waits for it
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(client: Any) -> bool:
    from mooring.serving.model_client import UnreachableServerError

    try:
        return bool(client.get("/ping").is_good)
    except UnreachableServerError:
        return False


class Report:
    """Tells a terminal, or a log, how far a job is and which files failed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._told = 0
        self._next = time.monotonic() + (0.0 if self._is_terminal else LOG_SECONDS)

    def __call__(self, progress: Any) -> None:
        """Tell of failures at once, and of progress now and then."""
        for failure in progress.failures[self._told :]:
            self._line(f"failed: {failure}")
        self._told = len(progress.failures)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (TERMINAL_SECONDS if self._is_terminal else LOG_SECONDS)
            self._stream.write(f"\r\033[K{_state(progress)}" if self._is_terminal else f"{_state(progress)}\n")
            self._stream.flush()

    def finish(self, progress: Any) -> None:
        """Tell what became of the job."""
        failed = len(progress.failures)
        self._line(
            f"{progress.files - failed} files done, {failed} failed: {progress.requests:,} requests, "
            f"{progress.bytes / MEGABYTE:,.1f} MB in {progress.seconds:,.1f} s."
        )

    def _line(self, text: str) -> None:
        self._stream.write(f"\r\033[K{text}\n" if self._is_terminal else f"{text}\n")


def _state(progress: Any) -> str:
    left = progress.seconds_left
    return (
        f"{progress.files} of {progress.files_total} files, "
        f"{progress.bytes / MEGABYTE:,.1f} of {progress.bytes_total / MEGABYTE:,.1f} MB, "
        f"{progress.requests / progress.seconds:,.1f} requests/s, "
        f"{progress.bytes / MEGABYTE / progress.seconds:,.2f} MB/s, {'?' if left is None else f'{left:,.0f}'} s left"
    )


def _positive(text: str) -> int:
    return _number(text, int, 1, "a whole number above 0")


def _count(text: str) -> int:
    return _number(text, int, 0, "a whole number")


def _megabytes(text: str) -> float:
    return _number(text, float, 0, "a number of megabytes")


def _seconds(text: str) -> float:
    return _number(text, float, 0.001, "a number of seconds above 0")


def _number(text: str, kind: Callable[[str], Number], least: float, expected: str) -> Number:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f'"{text}" is not {expected}')
    return value
