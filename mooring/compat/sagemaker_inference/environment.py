"""The serving container's settings under the toolkit's names, read when they are asked for."""

from pathlib import Path
from typing import Any

from mooring.contract.environment import process_variables

from . import content_types, parameters

DEFAULT_MODULE_NAME = "inference.py"
DEFAULT_HTTP_PORT = "8080"
MIB = 1 << 20


def __getattr__(name: str) -> str:
    """Return `base_dir`, `model_dir` or `code_dir`; the toolkit read them when it was imported."""
    variables = process_variables()
    base = Path(variables.get(parameters.BASE_PATH_ENV, "/opt/ml"))
    model = base / ("models" if variables.get(parameters.MULTI_MODEL_ENV) == "true" else "model")
    folders = {"base_dir": base, "model_dir": model, "code_dir": model / "code"}
    if name not in folders:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return str(folders[name])


class Environment:
    """What the variables say, with the toolkit's defaults."""

    def __init__(self) -> None:
        given = process_variables()
        program = given.get(parameters.USER_PROGRAM_ENV, DEFAULT_MODULE_NAME)
        self.module_name = program.removesuffix(".py")
        self.model_server_timeout = int(given.get(parameters.MODEL_SERVER_TIMEOUT_ENV, "60"))
        self.model_server_timeout_seconds = _number(given.get(parameters.MODEL_SERVER_TIMEOUT_SECONDS_ENV))
        self.model_server_workers = given.get(parameters.MODEL_SERVER_WORKERS_ENV)
        self.startup_timeout = int(given.get(parameters.STARTUP_TIMEOUT_ENV, "600"))
        self.default_accept = given.get(parameters.DEFAULT_INVOCATIONS_ACCEPT_ENV, content_types.JSON)
        self.inference_http_port = given.get(parameters.BIND_TO_PORT_ENV, DEFAULT_HTTP_PORT)
        self.management_http_port = self.inference_http_port
        self.safe_port_range = given.get(parameters.SAFE_PORT_RANGE_ENV)
        payload: Any = _number(given.get(parameters.MAX_REQUEST_SIZE))
        self.max_request_size = payload and payload * MIB


def _number(given: str | None) -> int | None:
    return int(given) if given else None
