"""What multi-model-server is told, planned from our settings: its command, variables and files. Nothing is done."""

import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mooring.handler.model_config import ModelConfig

from .mms_service import ACCEPT_VARIABLE, FIRST_LOAD_VARIABLE
from .settings import Limits, Mode, ServerSettings
from .zygote_link import HOST_VARIABLES

HANDLER = "mooring.serving.mms_service:handle"
VM_ARGUMENTS_VARIABLE = "SAGEMAKER_MODEL_SERVER_VMARGS"
# Its own default is 6.5 MB; our engine has no limit, and its integers end at 2 GiB.
MAX_RESPONSE_BYTES = 1 << 30
# The folder, within that of a run, for what is served from archives.
UNPACKED = "unpacked"
# These would take the place of what is planned here.
OVERRIDES = frozenset({"MMS_CONFIG_FILE", "MODEL_SERVER_HOME", FIRST_LOAD_VARIABLE})
# Nothing listens on the discard port, so that a load from a http address fails: it would fetch what anybody names,
# from inside the network, and unpack it without a look at its members' paths.
NO_DOWNLOADS = tuple(
    f"-D{scheme}.{key}"
    for scheme in ("http", "https")
    for key in ("proxyHost=127.0.0.1", "proxyPort=9", "nonProxyHosts=")
)
# All to standard output. A line per request, and the metrics that are lines too, only for those who debug.
LOG_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="console" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{{ISO8601}} %level %logger{{1}} %thread: %m%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Root level="error"><AppenderRef ref="console"/></Root>
    <Logger name="com.amazonaws.ml.mms" level="{level}"/>
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerThread" level="{detail}"/>
    <Logger name="ACCESS_LOG" level="{detail}"/>
    <Logger name="MMS_METRICS" level="{detail}"/>
    <Logger name="MODEL_METRICS" level="{detail}"/>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class MmsPlan:
    """One run of multi-model-server, below a folder of its own."""

    command: tuple[str, ...]
    variables: Mapping[str, str]
    files: Mapping[Path, str]
    # A url, absolute or not, names a path below the model store: a link there is all that a url can reach.
    links: Mapping[Path, Path]  # link -> where it leads
    first_load: Path  # what the model of a single-model server leaves once it has loaded, or has not


def plan(
    settings: ServerSettings,
    variables: Mapping[str, str],
    models: Mapping[str, Path],
    *,
    java: str,
    home: Path,
    folder: Path,
) -> MmsPlan:
    """Return the plan for a server that loads `models` at its start, where `home` holds the package `mms`."""
    properties, log = folder / "config.properties", folder / "log4j2.xml"
    store, temporary = folder / "store", folder / "tmp"
    command = (
        java,
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={temporary}",
        f"-Dlog4j.configurationFile={log.as_uri()}",
        *NO_DOWNLOADS,
        *shlex.split(variables.get(VM_ARGUMENTS_VARIABLE, "")),
        "-cp",
        str(jar(home)),
        "com.amazonaws.ml.mms.ModelServer",
        "--python",
        sys.executable,
        "--mms-config-file",
        str(properties),
    )
    roots = models.values() if settings.mode is Mode.SINGLE else (settings.root, folder / UNPACKED)
    first_load = folder / "first-load"
    kept = {name: value for name, value in variables.items() if name not in OVERRIDES}
    given = {ACCEPT_VARIABLE: settings.limits.default_accept}
    if settings.mode is Mode.SINGLE:
        given[FIRST_LOAD_VARIABLE] = str(first_load)
    return MmsPlan(
        command,
        {**HOST_VARIABLES, **kept, **given},
        {properties: as_properties(_properties(settings, models, store)), log: _log_configuration(settings.limits)},
        {store / spelling.lstrip("/"): Path(root) for root in roots for spelling in _spellings(root)},
        first_load,
    )


def jar(home: Path) -> Path:
    """Return where the Java server lies in a folder that holds the package `mms`."""
    return home / "mms" / "frontend" / "model-server.jar"


def for_one_model(limits: Limits, config: ModelConfig) -> Limits:
    """Return the limits of a server whose one model has a configuration of its own."""
    return replace(
        limits,
        workers=config.workers or limits.workers,
        response_seconds=config.response_seconds or limits.response_seconds,
        queue_length=config.queue_length or limits.queue_length,
    )


def as_properties(values: Mapping[str, str]) -> str:
    r"""Return the text of a Java properties file.

    >>> as_properties({"name": "C:\\é"})
    'name=C:\\\\\\u00e9\n'
    """
    return "".join(f"{name}={_escaped(value)}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[index : index + 2]) for index in range(0, len(units), 2))
    # A leading blank would be taken for the space around the equals sign.
    escaped = "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def _properties(settings: ServerSettings, models: Mapping[str, Path], store: Path) -> dict[str, str]:
    limits = settings.limits
    address = f"http://{settings.host}:{settings.port}"
    return {
        "inference_address": address,
        "management_address": address,
        "model_store": str(store),
        "load_models": ",".join(f"{name}={path}" for name, path in models.items()),
        "default_service_handler": HANDLER,
        "default_workers_per_model": str(limits.workers),
        # A load has this long, too. `default_response_timeout` without the unit would be minutes.
        "default_response_timeout_seconds": str(math.ceil(limits.response_seconds)),
        "job_queue_size": str(limits.queue_length),
        "max_request_size": str(limits.max_body_bytes),
        "max_response_size": str(MAX_RESPONSE_BYTES),
        # Bodies are ours to decode.
        "decode_input_request": "false",
        # Loaded before workers are forked, a model would share its pages, but threads do not survive a fork.
        "preload_model": "false",
    }


def _spellings(root: Path) -> set[str]:
    """Return the paths by which a folder may be named: as given, and with its links followed."""
    return {os.path.abspath(root), os.path.realpath(root)}  # noqa: PTH100 - pathlib has nothing for the first


def _log_configuration(limits: Limits) -> str:
    level = "debug" if limits.log_level <= 10 else "info" if limits.log_level <= 20 else "warn"
    return LOG_CONFIGURATION.format(level=level, detail="info" if level == "debug" else "warn")
