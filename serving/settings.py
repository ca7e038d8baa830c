"""What the server can be told, in one table: its name, unit, default, meaning, and what earlier servers called it.

A command-line option beats variables; of several variables for one thing the first in the table beats the others.
`docs/serving.md` holds this table, generated.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from mooring.contract.errors import SettingError
from mooring.contract.paths import ContainerPaths
from mooring.contract.switches import FALSE_WORDS, TRUE_WORDS

from .errors import MIB
from .eviction import Eviction
from .frames import MAX_FRAME_BYTES, MAX_META_BYTES
from .logs import FORMATS

# What may follow a number of bytes.
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# What the front door, zygote and an empty host need, and what a load may overshoot by.
RESERVE_BYTES = 384 * MIB
# The platform kills 30 s after SIGTERM.
SHUTDOWN_DRAIN_S = 25
MOST_PORT = 65535
# They travel to the model in one frame.
MOST_HEADER_BYTES = 8 * MIB
# What a body may have where no limit is set: as much as an answer. It fits into one frame with its head, where it goes
# to no file, and its size into the signed 32 bits that multi-model-server reads the limit into.
LARGEST_BODY_BYTES = MAX_FRAME_BYTES - MAX_META_BYTES
# The name stands in paths, and multi-model-server reads it in a list.
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# For the front door alone.
ADMIN_TOKEN = "MOORING_ADMIN_TOKEN"  # noqa: S105 - its name, not its value


class Mode(Enum):
    """What the server serves."""

    SINGLE = "single"  # the one model in /opt/ml/model, or --model
    MULTI = "multi"  # what the platform loads and unloads
    REPOSITORY = "repository"  # all that lies in a folder, loaded on first request


class ConsoleAccess(Enum):
    """Whom the console answers."""

    OFF = "off"
    LOCAL = "local"  # clients on this machine
    ANYWHERE = "anywhere"


# Local where somebody serves on a machine of theirs, off where the platform started the server.
CONSOLE_AUTO = "auto"


def with_units(text: str) -> str:
    """Write out a number of bytes such as 512M or 2G."""
    unit = UNITS.get(text[-1:].upper())
    return str(int(text[:-1]) * unit) if unit and text[:-1].isdecimal() else text


@dataclass(frozen=True)
class Setting:
    """One thing the server can be told. `aliases` are earlier names, each with what turns its unit into ours."""

    field: str
    kind: type
    meaning: str
    aliases: Mapping[str, float]
    is_secret: bool = False

    @property
    def variable(self) -> str:
        """The variable that sets it."""
        return f"MOORING_{self.field.upper()}"

    @property
    def option(self) -> str:
        """The command-line option that sets it."""
        return f"--{self.field.replace('_', '-')}"

    def _has_units(self, name: str) -> bool:
        return self.field.endswith("_bytes") and self.aliases.get(name) != MIB

    def _expected(self, name: str) -> str:
        if self.aliases.get(name) == MIB:
            return "a number of megabytes"
        if self._has_units(name):
            return "a number of bytes, or with K, M or G, such as 512M"
        return "a whole number" if self.kind is int else "a number of seconds"

    def shown(self, value: Any) -> str:
        """Return a value as the log may say it."""
        return "***" if self.is_secret and value else str(value)

    def parse(self, name: str, text: str) -> Any:
        """Read a value. Raises `SettingError` naming the variable or option, and what it should be."""
        text = text.strip()
        factor = self.aliases.get(name, 1)
        if self.kind is bool:
            if text.lower() not in TRUE_WORDS | FALSE_WORDS:
                raise SettingError(name, text, "true or false")
            return text.lower() in TRUE_WORDS
        if self.kind is str:
            return text
        try:
            number = float(with_units(text) if self._has_units(name) else text) * factor
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0 or (self.kind is int and number != int(number)):
            raise SettingError(name, text, self._expected(name))
        return int(number) if self.kind is int else number


@dataclass(frozen=True)
class Limits:
    """The settings that are numbers and switches, each in the unit its name says; 0 means never or none."""

    port: int = 8080
    model_name: str = "model"  # as the earlier PyTorch toolkit called it
    default_accept: str = "application/json"
    log_level: int = 20
    log_format: str = "text"
    access_log: bool = False
    # The platform sends at most 6 MB to a real-time endpoint, more in batch jobs; earlier servers stopped at 6.5 MB.
    max_body_bytes: int = 25 * MIB
    spool_bytes: int = 8 * MIB
    workers: int = 1
    shared_hosts: int = 0
    fronts: int = 0
    queue_length: int = 1000
    overload_status: int = 503
    response_seconds: float = 60.0
    stream_seconds: float = 480.0  # the platform ends a streamed answer at 8 minutes
    load_seconds: float = 340.0
    room_seconds: float = 10.0
    drain_seconds: float = 340.0  # the platform gives up on an unload at 360 s
    keep_alive_seconds: float = 75.0  # longer than the 60 s of the load balancers in front
    header_seconds: float = 10.0
    body_bytes_per_second: int = 1024  # once a body has taken longer than header_seconds
    header_bytes: int = 64 * 1024
    header_count: int = 128
    chunk_count: int = 100_000
    buffer_streams: bool = False
    idle_seconds: float = 0.0
    recycle_requests: int = 0
    recycle_seconds: float = 0.0
    recycle_growth_bytes: int = 0
    budget_bytes: int = 0
    max_concurrent_transforms: int = 0
    enable_stateful_sessions: bool = False
    session_seconds: float = 1200.0
    sessions_path: str = "/dev/shm/mooring-sessions"  # noqa: S108 - made for this user alone
    console: str = CONSOLE_AUTO
    admin_token: str = field(default="", repr=False)


SETTINGS: tuple[Setting, ...] = (
    Setting("port", int, "the port to listen on", {"SAGEMAKER_BIND_TO_PORT": 1}),
    Setting("model_name", str, "what the one model is called in paths such as /v2/models/NAME/infer", {}),
    Setting(
        "default_accept",
        str,
        "what a client that accepts anything gets",
        {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": 1},
    ),
    Setting("log_level", int, "10 debug, 20 info, 30 warnings", {"SAGEMAKER_CONTAINER_LOG_LEVEL": 1}),
    Setting("log_format", str, "`text`, or `json`: an object a line, with request id and model", {}),
    Setting("access_log", bool, "log every answer but those to /ping", {}),
    Setting(
        "max_body_bytes",
        int,
        f"the largest request body; 0: no limit below {LARGEST_BODY_BYTES}, the largest answer",
        {
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": MIB,
            "SAGEMAKER_MAX_REQUEST_SIZE": 1,
            "MMS_MAX_REQUEST_SIZE": 1,
            "TS_MAX_REQUEST_SIZE": 1,
            "MAX_CONTENT_LENGTH": 1,
        },
    ),
    Setting("spool_bytes", int, "above this a body is kept in a file until its model takes it", {}),
    Setting(
        "workers",
        int,
        "processes of a model that brings code, unless its mooring.toml says otherwise",
        {
            "SAGEMAKER_MODEL_SERVER_WORKERS": 1,
            "SAGEMAKER_NUM_MODEL_WORKERS": 1,
            "SAGEMAKER_TS_MAX_WORKERS": 1,
            "MMS_DEFAULT_WORKERS_PER_MODEL": 1,
            "TS_DEFAULT_WORKERS_PER_MODEL": 1,
        },
    ),
    Setting("shared_hosts", int, "processes that models without code share; 0: one per two cores, one per GPU", {}),
    Setting("fronts", int, "processes that speak HTTP for the front door, for many cores; 0: it does so itself", {}),
    Setting(
        "queue_length",
        int,
        "requests that may be waiting for one model or be inside it",
        {"SAGEMAKER_MODEL_JOB_QUEUE_SIZE": 1, "MMS_JOB_QUEUE_SIZE": 1, "TS_JOB_QUEUE_SIZE": 1},
    ),
    Setting("overload_status", int, "the status of a request that finds the queue full: 503 or 429", {}),
    Setting(
        "response_seconds",
        float,
        "how long a model may take to answer, or to begin a stream",
        {
            "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": 1,
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": 1,
            "SAGEMAKER_TS_RESPONSE_TIMEOUT": 1,
            # MMS reads its own default_response_timeout in minutes, by accident; everybody who sets it means seconds.
            "MMS_DEFAULT_RESPONSE_TIMEOUT": 1,
            "TS_DEFAULT_RESPONSE_TIMEOUT": 1,
        },
    ),
    Setting("stream_seconds", float, "how long a streamed answer may take in all", {}),
    Setting(
        "load_seconds",
        float,
        "how long a model may take to load, its packages included",
        {"SAGEMAKER_STARTUP_TIMEOUT": 1, "TS_DEFAULT_STARTUP_TIMEOUT": 1},
    ),
    Setting("room_seconds", float, "how long a load waits for busy models to make room, unless the platform does", {}),
    Setting("drain_seconds", float, "how long an unload waits for requests under way", {}),
    Setting("keep_alive_seconds", float, "how long an idle connection stays open", {}),
    Setting("header_seconds", float, "how long a request's head may take to arrive", {}),
    Setting("body_bytes_per_second", int, "slower bodies are given up", {}),
    Setting("header_bytes", int, "the largest head of a request", {}),
    Setting("header_count", int, "the most headers of a request", {}),
    Setting("chunk_count", int, "the most chunks of a request's body", {}),
    Setting("buffer_streams", bool, "answer whole, with a Content-Length, what handlers stream: async endpoints", {}),
    Setting("idle_seconds", float, "unload a model that had no request for so long, with --repository; 0 never", {}),
    Setting("recycle_requests", int, "replace a process after so many requests; 0 never", {}),
    Setting("recycle_seconds", float, "replace a process after so long; 0 never", {}),
    Setting("recycle_growth_bytes", int, "replace a process that has grown by so much; 0 never", {}),
    Setting("budget_bytes", int, "memory for models; 0: the container's limit less a reserve", {}),
    Setting(
        "max_concurrent_transforms",
        int,
        "what /execution-parameters advises batch jobs; 0: one per worker",
        {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": 1},
    ),
    Setting(
        "enable_stateful_sessions",
        bool,
        "answer requests that open sessions",
        {"SAGEMAKER_ENABLE_STATEFUL_SESSIONS": 1},
    ),
    Setting("session_seconds", float, "how long a session lives", {"SAGEMAKER_SESSIONS_EXPIRATION": 1}),
    Setting("sessions_path", str, "where sessions keep their folders", {"SAGEMAKER_SESSIONS_PATH": 1}),
    Setting(
        "console",
        str,
        "who sees /console: off, local (clients on this machine), anywhere; auto: local with --model or --repository, "
        "else off",
        {},
    ),
    Setting("admin_token", str, "what loads and unloads from other machines have to bring", {}, is_secret=True),
)


@dataclass(frozen=True)
class ServerSettings:
    """Everything `serve` needs to know before it starts."""

    mode: Mode
    root: Path  # the model's folder or archive, or the folder that models lie below
    host: str = "0.0.0.0"  # noqa: S104 - the platform's probes come from outside the container
    eviction: Eviction = Eviction.PLATFORM
    limits: Limits = Limits()
    is_platform: bool = True  # whether nothing but the platform's contract said what to serve

    @property
    def port(self) -> int:
        """The port to listen on."""
        return self.limits.port

    @property
    def single_model(self) -> str | None:
        """What the one model is called, None where there are many."""
        return self.limits.model_name if self.mode is Mode.SINGLE else None

    @property
    def console(self) -> ConsoleAccess:
        """Whom the console answers."""
        if self.limits.console == CONSOLE_AUTO:
            return ConsoleAccess.OFF if self.is_platform else ConsoleAccess.LOCAL
        return ConsoleAccess(self.limits.console)

    def described(self) -> str:
        """Return every setting with its value, one line, for the log."""
        shown = " ".join(f"{item.field}={item.shown(getattr(self.limits, item.field))}" for item in SETTINGS)
        return f"mode={self.mode.value} root={self.root} host={self.host} evict={self.eviction.value} {shown}"


def limits(variables: Mapping[str, str], options: Mapping[str, str] | None = None) -> Limits:
    """Return what variables and options (by field name) set. Raises `SettingError`."""
    given: dict[str, Any] = {}
    said = {setting.field: _said(setting, variables, options or {}) for setting in SETTINGS}
    for setting in SETTINGS:
        name, text = said[setting.field]
        if text is not None:
            given[setting.field] = setting.parse(name, text)
    made = replace(Limits(), **given)
    for field_name, is_good, expected in _rules(made):
        if not is_good:
            name, text = said[field_name]
            raise SettingError(name, str(getattr(made, field_name)) if text is None else text.strip(), expected)
    return replace(made, max_body_bytes=made.max_body_bytes or LARGEST_BODY_BYTES)


def _said(setting: Setting, variables: Mapping[str, str], options: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the option or variable that counts, and what it says; nothing where none is set."""
    option = options.get(setting.field)
    if option is not None:
        return setting.option, option
    for name in (setting.variable, *setting.aliases):
        if variables.get(name, "").strip():
            return name, variables[name]
    return setting.variable, None


def _rules(made: Limits) -> Iterator[tuple[str, bool, str]]:
    """Yield fields, whether their values can be used, and what is expected of them."""
    yield "port", made.port <= MOST_PORT, f"0 to {MOST_PORT}"
    yield "model_name", bool(MODEL_NAME.fullmatch(made.model_name)), "letters, digits and _, then also . and -"
    yield "overload_status", made.overload_status in (429, 503), "503 or 429"
    yield "log_format", made.log_format in FORMATS, " or ".join(FORMATS)
    console = (CONSOLE_AUTO, *(access.value for access in ConsoleAccess))
    yield "console", made.console in console, "auto, off, local or anywhere"
    yield "header_bytes", made.header_bytes <= MOST_HEADER_BYTES, f"{MOST_HEADER_BYTES:,} at most"
    for name in ("response_seconds", "load_seconds", "queue_length", "workers"):
        yield name, bool(getattr(made, name)), "more than 0"


def from_variables(variables: Mapping[str, str], options: Mapping[str, str] | None = None) -> ServerSettings:
    """Return the settings of a container that the platform started. Raises `SettingError`."""
    paths = ContainerPaths.from_variables(variables)
    is_multi = variables.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
    return ServerSettings(
        mode=Mode.MULTI if is_multi else Mode.SINGLE,
        root=paths.models if is_multi else paths.model,
        limits=limits(variables, options),
    )


def table() -> str:
    """Return the table of settings as Markdown."""
    lines = ["| variable | option | default | meaning | also read |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        default = getattr(Limits(), setting.field)
        also = ", ".join(f"`{name}`" + (" (MB)" if factor == MIB else "") for name, factor in setting.aliases.items())
        shown = str(default).lower() if isinstance(default, bool) else default
        lines.append(f"| `{setting.variable}` | `{setting.option}` | {shown} | {setting.meaning} | {also} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())  # noqa: T201 - what this module is run for
