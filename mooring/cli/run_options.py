"""The options of `mooring run`: how channels, hyperparameters and variables are written on a command line."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Run a training job or a server as the platform would: the files and folders below /opt/ml, the variables, one port, the
signals, the grace. In a container of an image, or without --image as processes of this machine.
"""
EPILOG = """\
examples: mooring run train --code . --channel train=data/train --hyperparameters epochs=5
          mooring run train --image flowers --channel train=data/train --env SAGEMAKER_PROGRAM=train.py --instances 2
          mooring run serve --model model.tar.gz --image flowers --memory 2g

exit codes: the container's own (128 + n for death by signal n); 1 if it could not be started, 2 for wrong usage
"""
TRAIN = """\
Run a training job. What it leaves goes to --output: model.tar.gz, output.tar.gz and, if it failed, the failure file.

Ctrl-C is the platform's stop: SIGTERM, then SIGKILL after 120 s. With --checkpoints the next run goes on from there.
"""
TRAIN_EPILOG = """\
example: mooring run train --code . --channel train=data/train --hyperparameters epochs=5 rate=0.1 --checkpoints ckpt

exit codes: 0 if every host ended well, else the code of the one that failed first (128 + n for death by signal n);
1 if the job could not be started or its results not be kept, 2 for wrong usage
"""
SERVE = """\
Serve a model. Its URL is printed when /ping is healthy; requests go to URL/invocations. A folder is mounted read-only,
as the platform mounts what is not compressed; an archive is unpacked first. Without --model the image's own is served.

Ctrl-C is the platform's stop: SIGTERM, then SIGKILL after 30 s.
"""
SERVE_EPILOG = """\
example: mooring run serve --model model.tar.gz --port 8080
         mooring run serve --image flowers --env SAGEMAKER_MULTI_MODEL=true

exit codes: the server's own (128 + n for death by signal n); 1 if it could not be started or was not healthy in time,
2 for wrong usage
"""
CHANNEL = re.compile(r"[A-Za-z0-9._-]+")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MEMORY = re.compile(r"[0-9]+[bkmgBKMG]?")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    from mooring.workbench import endpoint, job

    made = _parser("mooring run", DESCRIPTION, EPILOG)
    what = made.add_subparsers(dest="what", required=True, metavar="train|serve")
    train = what.add_parser("train", help="a training job", **_texts(TRAIN, TRAIN_EPILOG))
    train.add_argument(
        "--channel", action="append", default=[], type=channel, metavar="NAME=DIR", help="input data; may be repeated"
    )
    train.add_argument(
        "--hyperparameters",
        nargs="+",
        action="extend",
        default=[],
        metavar="K=V|FILE",
        help="values (read as JSON where they are JSON), or a file with a JSON object",
    )
    train.add_argument("--code", type=folder, metavar="DIR", help="what the job finds in /opt/ml/code")
    train.add_argument("--program", metavar="FILE", help="the script in it (default train.py)")
    train.add_argument("--instances", type=count, default=1, metavar="N", help="hosts (default 1; more need --image)")
    train.add_argument("--checkpoints", type=Path, metavar="DIR", help="kept from run to run (default: not kept)")
    train.add_argument(
        "--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (default output)"
    )
    _common(train, job.GRACE_SECONDS)
    serve = what.add_parser("serve", help="a model server", **_texts(SERVE, SERVE_EPILOG))
    serve.add_argument("--model", type=existing, metavar="DIR|ARCHIVE", help="what is in /opt/ml/model")
    serve.add_argument("--port", type=count, default=8080, metavar="N", help="of this machine (default 8080)")
    serve.add_argument(
        "--startup",
        type=seconds,
        default=endpoint.STARTUP_SECONDS,
        metavar="SECONDS",
        help=f"until /ping is healthy (default {endpoint.STARTUP_SECONDS})",
    )
    _common(serve, endpoint.GRACE_SECONDS)
    return made


def _common(made: argparse.ArgumentParser, grace: int) -> None:
    made.add_argument("--image", default="", help="run containers of it (default: processes of this machine)")
    made.add_argument(
        "--env", action="append", default=[], type=variable, metavar="NAME[=VALUE]", help="a variable; may be repeated"
    )
    made.add_argument("--memory", type=memory, metavar="SIZE", help="limit, such as 2g; needs --image")
    made.add_argument("--cpus", type=seconds, metavar="N", help="limit; for processes, whole cores")
    made.add_argument("--gpus", metavar="WHICH", help="as `docker run --gpus` has it; needs --image")
    made.add_argument(
        "--grace", type=seconds, default=float(grace), metavar="SECONDS", help=f"SIGTERM to SIGKILL (default {grace})"
    )
    made.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")


def _parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=name, **_texts(description, epilog))


def _texts(description: str, epilog: str) -> dict[str, Any]:
    return {
        "description": description,
        "epilog": epilog,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


# --- values -----------------------------------------------------------------------------------------------------------


def hyperparameters(given: Sequence[str]) -> dict[str, Any]:
    """Read hyperparameters; what comes later wins. Raises `ValueError` naming all that cannot be read."""
    values: dict[str, Any] = {}
    problems = []
    for text in given:
        name, separator, value = text.partition("=")
        try:
            values |= {name: _value(value)} if separator and name else _object(Path(text))
        except (OSError, ValueError) as error:
            problems.append(f"{text}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _object(file: Path) -> Mapping[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def channel(text: str) -> tuple[str, Path]:
    """Read NAME=DIR."""
    name, separator, path = text.partition("=")
    if not separator or not CHANNEL.fullmatch(name):
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=DIR')
    return name, folder(path)


def folder(text: str) -> Path:
    """Read the name of a folder that exists."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def existing(text: str) -> Path:
    """Read a path to something that exists."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is nothing at {text}")
    return Path(text)


def variable(text: str) -> tuple[str, str | None]:
    """Read NAME=VALUE, or NAME for one that has its value here."""
    name, separator, value = text.partition("=")
    if not VARIABLE.fullmatch(name):
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=VALUE')
    return name, value if separator else None


def variables(given: Sequence[tuple[str, str | None]], here: Mapping[str, str]) -> dict[str, str]:
    """Return variables with their values. Raises `ValueError` naming all that have none here."""
    missing = [name for name, value in given if value is None and name not in here]
    if missing:
        raise ValueError(f"--env: there is no variable {', '.join(missing)} here; give it as NAME=VALUE")
    return {name: here[name] if value is None else value for name, value in given}


def memory(text: str) -> str:
    """Read a size as Docker has it."""
    if not MEMORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a size such as 512m or 2g')
    return text


def count(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def seconds(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f'"{text}" is not a number above 0')
    return value
