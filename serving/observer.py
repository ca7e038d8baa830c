"""Tells of every answer, where that is asked for: a line in the log, a span. Each costs some ten microseconds."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

from . import frames
from .invocation import Invocation
from .settings import Limits
from .tracing import Tracing

logger = logging.getLogger("mooring.requests")


class Observer:
    """What is told of the answers of both lanes; pings are left out by who calls."""

    def __init__(self, tracing: Tracing | None, *, logs: bool) -> None:
        self._logs = logs
        self._tracing = tracing

    @classmethod
    def open(cls, limits: Limits, variables: Mapping[str, str]) -> Self | None:
        """Return what was asked for, None where nothing was."""
        tracing = Tracing.open(variables)
        return cls(tracing, logs=limits.access_log) if tracing is not None or limits.access_log else None

    def express(self, invocation: Invocation, status: int, size: int | None = None) -> None:
        """Tell of an answer of the express lane, or of the head of a streamed one, whose size nobody knows."""
        seconds = time.monotonic() - invocation.started
        about = {"model": invocation.name, "request_id": invocation.id.decode("latin-1")}
        if self._logs:
            extra = {**about, "status": status, "seconds": round(seconds, 6), "bytes": size}
            logger.info("%d in %.1f ms", status, seconds * 1e3, extra=extra)
        if self._tracing is not None:
            headers = dict(frames.decode_lines(invocation.meta))
            self._tracing.record("invoke", seconds, status, headers, _attributes(about))

    def ordinary(self, scope: Mapping[str, Any], request_id: bytes, status: int, seconds: float) -> None:
        """Tell of an answer of the ordinary lane."""
        method, path = scope["method"], scope["path"]
        if not path.isprintable():  # a client chooses it, but not lines of the log
            path = quote(path)
        about = {"request_id": request_id.decode("latin-1"), "method": method, "path": path}
        if self._logs:
            extra = {**about, "status": status, "seconds": round(seconds, 6)}
            logger.info("%s %s: %d in %.1f ms", method, path, status, seconds * 1e3, extra=extra)
        if self._tracing is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            known = {"http.request.method": method, "url.path": path}
            self._tracing.record(method, seconds, status, headers, known | _attributes(about))

    def close(self) -> None:
        """Send what is left."""
        if self._tracing is not None:
            self._tracing.close()


def _attributes(about: Mapping[str, str]) -> dict[str, str]:
    return {f"mooring.{name}": about[name] for name in ("model", "request_id") if name in about}
