"""The command `serve`: assemble the model server and run it until it is told to stop."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from mooring.contract.environment import LOG_FORMAT, process_variables
from mooring.contract.errors import MooringError, SettingError

DESCRIPTION = """\
Serve models over HTTP.

Without options it does what the SageMaker platform expects of an image: it serves the model in /opt/ml/model, or,
with SAGEMAKER_MULTI_MODEL=true, whatever models the platform loads and unloads, on port 8080.

  serve --model DIR|ARCHIVE    serve one model; POST /invocations
  serve --repository DIR       serve all models in a folder, each loaded on its first request;
                               POST /models/NAME/invoke
"""
EPILOG = """\
variables:
  SAGEMAKER_BIND_TO_PORT                   the port, unless --port is given
  SAGEMAKER_MULTI_MODEL=true               multi-model mode
  SAGEMAKER_MAX_PAYLOAD_IN_MB              the largest request body (default 25)
  SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS   how long a model may take to answer (default 60)
  SAGEMAKER_STARTUP_TIMEOUT                how long a model may take to load (default 340)
  SAGEMAKER_MODEL_JOB_QUEUE_SIZE           requests that may wait for one model (default 1000)
  SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT     what a client without Accept gets (default application/json)
  SAGEMAKER_PROGRAM                        the handler in a model's code folder (default inference.py)

exit codes: 0 after SIGTERM or SIGINT, 1 if the model cannot be served or the port is taken, 2 for wrong usage
"""
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    try:
        sys.exit(run(arguments))
    except MooringError as error:
        sys.stderr.write(f"serve: {error}\n")
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="serve", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="DIR|ARCHIVE", type=Path, help="serve this one model")
    what.add_argument("--repository", metavar="DIR", type=Path, help="serve the models in this folder")
    made.add_argument("--host", help="address to listen on (default 127.0.0.1 with --model or --repository)")
    made.add_argument("--port", type=int, help="port to listen on (default 8080)")
    made.add_argument(
        "--budget", metavar="BYTES", type=size, help="memory for models, e.g. 2G (default: the machine's)"
    )
    made.add_argument(
        "--evict",
        choices=["lru", "never"],
        default="lru",
        help="who makes room when memory is short, with --repository (default lru: the least recently used idle model)",
    )
    return made


def size(text: str) -> int:
    """Read a number of bytes such as 512M or 2G."""
    unit = text[-1:].upper() if text[-1:].isalpha() else ""
    digits = text[: len(text) - len(unit)]
    if unit not in UNITS or not digits.isdecimal() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is no size; give bytes, or a number with K, M or G, such as 512M')
    return int(digits) * UNITS[unit]


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code. Raises `MooringError` for what the operator must mend."""
    from mooring.serving.residency import Eviction
    from mooring.serving.settings import Mode, from_variables

    variables = process_variables()
    settings = from_variables(variables)
    local = arguments.model or arguments.repository
    if local is not None:
        if not local.exists():
            raise SettingError("--model" if arguments.model else "--repository", str(local), "a path that exists")
        settings = replace(settings, mode=Mode.SINGLE if arguments.model else Mode.REPOSITORY, root=local.resolve())
        settings = replace(settings, host="127.0.0.1")
    if arguments.repository is not None and arguments.evict == "lru":
        settings = replace(settings, eviction=Eviction.LRU)
    settings = replace(
        settings,
        host=arguments.host or settings.host,
        port=arguments.port or settings.port,
        budget_bytes=arguments.budget,
    )
    logging.basicConfig(level=settings.log_level, format=LOG_FORMAT, stream=sys.stderr)
    # The zygote's imports take longest, so it is started before the web framework is imported.
    from mooring.serving.pool import make_pool
    from mooring.serving.socket_binding import bind

    listener = bind(settings.host, settings.port)
    pool = make_pool(variables)
    pool.start()
    from mooring.serving.server import serve

    return serve(settings, variables, listener, pool)
