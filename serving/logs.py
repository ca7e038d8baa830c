"""Log lines, as text or as JSON objects, with the request and the model that they are about.

A record says both by the attributes `request_id` and `model`; in a host a filter adds those of the batch that runs, so
that lines of a model's own code carry them too.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from mooring.contract.environment import LOG_FORMAT

FORMATS = ("text", "json")
FORMAT_VARIABLE = "MOORING_LOG_FORMAT"
LEVEL_VARIABLE = "MOORING_LOG_LEVEL"
# What a record may have beside its message, and a JSON line then has under the same name.
FIELDS = ("request_id", "model", "method", "path", "status", "seconds", "bytes")


class TextFormatter(logging.Formatter):
    """A line with the model and request in brackets behind the message, where they are known."""

    def __init__(self) -> None:
        super().__init__(LOG_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line without the traceback."""
        line = super().formatMessage(record)
        about = [str(getattr(record, name)) for name in ("model", "request_id") if getattr(record, name, "")]
        return f"{line} [{' '.join(about)}]" if about else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, with the traceback as one text."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: int, form: str, about: Callable[[], Mapping[str, str]] | None = None) -> None:
    """Write this process's log to standard error. `about` says which request and model a line is about."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    if about is not None:
        handler.addFilter(_adding(about))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def configure_from(variables: Mapping[str, str], about: Callable[[], Mapping[str, str]]) -> None:
    """Do the same in a host, as the front door was told."""
    level = variables.get(LEVEL_VARIABLE, "")
    configure(int(level) if level.isdecimal() else logging.INFO, variables.get(FORMAT_VARIABLE, ""), about)


def _adding(about: Callable[[], Mapping[str, str]]) -> Callable[[logging.LogRecord], bool]:
    def add(record: logging.LogRecord) -> bool:
        for name, value in about().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True

    return add
