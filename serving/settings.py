"""What the server can be told, by command line and by variables, with every name that earlier servers used.

The command line beats variables; of several variables for one thing the first in the table beats the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mooring.contract.errors import SettingError
from mooring.contract.paths import ContainerPaths

from .errors import MIB
from .residency import Eviction

DEFAULT_PORT = 8080
# The platform sends at most 6 MB to a real-time endpoint, but more in batch jobs; earlier servers stopped at 6.5 MB.
DEFAULT_MAX_BODY_BYTES = 25 * MIB
# The platform gives up on an unload at 360 s, and kills 30 s after SIGTERM.
UNLOAD_DRAIN_S = 340.0
SHUTDOWN_DRAIN_S = 25
# What the front door, zygote and an empty host need, and what a load may overshoot by.
RESERVE_BYTES = 384 * MIB


class Mode(Enum):
    """What the server serves."""

    SINGLE = "single"  # the one model in /opt/ml/model, or --model
    MULTI = "multi"  # what the platform loads and unloads
    REPOSITORY = "repository"  # all that lies in a folder, loaded on first request


@dataclass(frozen=True)
class Limits:
    """Times and sizes that bound what one client or model can take."""

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    queue_length: int = 1000
    response_seconds: float = 60.0
    load_seconds: float = 340.0
    drain_seconds: float = UNLOAD_DRAIN_S
    keep_alive_seconds: float = 75.0  # longer than the 60 s of the load balancers in front
    header_seconds: float = 10.0
    body_bytes_per_second: int = 1024  # once a body has taken longer than header_seconds
    header_bytes: int = 64 * 1024
    header_count: int = 128


@dataclass(frozen=True)
class ServerSettings:
    """Everything `serve` needs to know before it starts."""

    mode: Mode
    root: Path  # the model's folder or archive, or the folder that models lie below
    host: str = "0.0.0.0"  # noqa: S104 - the platform's probes come from outside the container
    port: int = DEFAULT_PORT
    eviction: Eviction = Eviction.PLATFORM
    budget_bytes: int | None = None  # default: the container's limit less a reserve
    default_accept: str = "application/json"
    log_level: int = 20
    limits: Limits = field(default_factory=Limits)


# Setting -> variables that give it, in order of precedence, each with what turns its unit into ours.
MAX_BODY_BYTES = {
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": MIB,
    "SAGEMAKER_MAX_REQUEST_SIZE": 1,
    "MMS_MAX_REQUEST_SIZE": 1,
    "TS_MAX_REQUEST_SIZE": 1,
    "MAX_CONTENT_LENGTH": 1,
}
QUEUE_LENGTH = {"SAGEMAKER_MODEL_JOB_QUEUE_SIZE": 1, "MMS_JOB_QUEUE_SIZE": 1, "TS_JOB_QUEUE_SIZE": 1}
# MMS reads its own default_response_timeout in minutes, by accident; everybody who sets it means seconds.
RESPONSE_SECONDS = {
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": 1,
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": 1,
    "SAGEMAKER_TS_RESPONSE_TIMEOUT": 1,
    "MMS_DEFAULT_RESPONSE_TIMEOUT": 1,
    "TS_DEFAULT_RESPONSE_TIMEOUT": 1,
}
LOAD_SECONDS = {"SAGEMAKER_STARTUP_TIMEOUT": 1, "TS_DEFAULT_STARTUP_TIMEOUT": 1}
PORT = {"SAGEMAKER_BIND_TO_PORT": 1}
LOG_LEVEL = {"SAGEMAKER_CONTAINER_LOG_LEVEL": 1}


def limits(variables: Mapping[str, str]) -> Limits:
    """Return the limits that variables set. Raises `SettingError` naming the variable and what it should be."""
    default = Limits()
    return Limits(
        max_body_bytes=whole_number(variables, MAX_BODY_BYTES, default.max_body_bytes),
        queue_length=whole_number(variables, QUEUE_LENGTH, default.queue_length),
        response_seconds=whole_number(variables, RESPONSE_SECONDS, int(default.response_seconds)),
        load_seconds=whole_number(variables, LOAD_SECONDS, int(default.load_seconds)),
    )


def whole_number(variables: Mapping[str, str], names: Mapping[str, int], default: int) -> int:
    """Return the first of the named variables that is set, in our unit. Raises `SettingError`."""
    for name, factor in names.items():
        given = variables.get(name, "").strip()
        if given:
            if not given.isdecimal() or int(given) == 0:
                raise SettingError(name, given, "a whole number above 0")
            return int(given) * factor
    return default


def from_variables(variables: Mapping[str, str]) -> ServerSettings:
    """Return the settings of a container that the platform started. Raises `SettingError`."""
    paths = ContainerPaths.from_variables(variables)
    is_multi = variables.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true"
    return ServerSettings(
        mode=Mode.MULTI if is_multi else Mode.SINGLE,
        root=paths.models if is_multi else paths.model,
        port=whole_number(variables, PORT, DEFAULT_PORT),
        default_accept=variables.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or "application/json",
        log_level=whole_number(variables, LOG_LEVEL, 20),
        limits=limits(variables),
    )
