"""The command `serve`: assemble the model server and run it until it is told to stop."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mooring.contract.environment import process_variables
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
Every setting is also read from a variable: --response-seconds from MOORING_RESPONSE_SECONDS, and from the names that
earlier servers gave it (docs/serving.md lists them). Others:
  SAGEMAKER_MULTI_MODEL=true   multi-model mode
  MOORING_ENGINE               mooring or mms, unless --engine is given
  SAGEMAKER_PROGRAM            the handler script in a model's code folder (default inference.py)
  SAGEMAKER_HANDLER            an entry point, module:function, as for multi-model-server
  HF_TASK                      what a transformers model does, where its config.json does not say

example: serve --repository ./models --budget-bytes 2G --idle-seconds 600

exit codes: 0 after SIGTERM or SIGINT, 1 if the model cannot be served or the port is taken, 2 for wrong usage
"""
ENGINES = ("mooring", "mms")
ENGINE_VARIABLE = "MOORING_ENGINE"


def main() -> None:
    """Run the command with the process's arguments and variables."""
    arguments = parser().parse_args()
    try:
        sys.exit(run(arguments))
    except MooringError as error:
        sys.stderr.write(f"serve: {error}\n")
        # An option that cannot be read is wrong usage; a variable is the container's configuration.
        sys.exit(2 if isinstance(error, SettingError) and error.name in _setting_options() else 1)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    from mooring.serving.settings import SETTINGS, Limits

    made = argparse.ArgumentParser(
        prog="serve", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="DIR|ARCHIVE", type=Path, help="serve this one model")
    what.add_argument("--repository", metavar="DIR", type=Path, help="serve the models in this folder")
    made.add_argument(
        "--engine",
        choices=ENGINES,
        help=f"what serves: this server, or multi-model-server with the same handlers (default {ENGINES[0]})",
    )
    made.add_argument("--host", help="address to listen on (default 127.0.0.1 with --model or --repository)")
    made.add_argument(
        "--evict",
        choices=["reuse", "lru", "never"],
        default="reuse",
        help="which idle model makes room when memory is short, with --repository: the one wanted again last (reuse), "
        "or the least recently used",
    )
    group = made.add_argument_group("settings")
    for setting in SETTINGS:
        metavar = {int: "N", float: "SECONDS", bool: "true|false", str: "TEXT"}[setting.kind]
        default = getattr(Limits(), setting.field)
        also = f"; also {', '.join(setting.aliases)}" if setting.aliases else ""
        group.add_argument(setting.option, metavar=metavar, help=f"{setting.meaning} (default {default}{also})")
    return made


def _setting_options() -> set[str]:
    from mooring.serving.settings import SETTINGS

    return {setting.option for setting in SETTINGS}


def engine(option: str | None, variables: Mapping[str, str]) -> str:
    """Return the engine that is asked for. Raises `SettingError` for a variable that names none."""
    named = option or variables.get(ENGINE_VARIABLE) or ENGINES[0]
    if named not in ENGINES:
        raise SettingError(ENGINE_VARIABLE, named, " or ".join(ENGINES))
    return named


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit code. Raises `MooringError` for what the operator must mend."""
    from mooring.serving import logs
    from mooring.serving.eviction import Eviction
    from mooring.serving.settings import SETTINGS, Mode, from_variables

    variables = process_variables()
    given = {setting.field: getattr(arguments, setting.field) for setting in SETTINGS}
    options = {name: value for name, value in given.items() if value}
    settings = from_variables(variables, options)
    local = arguments.model or arguments.repository
    if local is not None:
        if not local.exists():
            raise SettingError("--model" if arguments.model else "--repository", str(local), "a path that exists")
        settings = replace(settings, mode=Mode.SINGLE if arguments.model else Mode.REPOSITORY, root=local.resolve())
        settings = replace(settings, host="127.0.0.1", is_platform=False)
    if arguments.repository is not None and arguments.evict != "never":
        settings = replace(settings, eviction=Eviction(arguments.evict))
    settings = replace(settings, host=arguments.host or settings.host)
    limits = settings.limits
    logs.configure(limits.log_level, limits.log_format)
    variables |= {logs.LEVEL_VARIABLE: str(limits.log_level), logs.FORMAT_VARIABLE: limits.log_format}
    if engine(arguments.engine, variables) == "mms":
        from mooring.serving import mms_engine

        return mms_engine.serve(settings, variables)
    # The zygote's imports take longest, so it is started before the web framework is imported.
    from mooring.serving.pool import make_pool
    from mooring.serving.socket_binding import bind

    listener = bind(settings.host, settings.port)
    pool = make_pool(variables, settings)
    pool.start()
    from mooring.serving.server import serve

    return serve(settings, variables, listener, pool)
