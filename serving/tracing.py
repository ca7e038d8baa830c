"""Spans of OpenTelemetry: one for each request, under the client's own where it sends `traceparent`.

Only where the packages are there (the extra `otel`) and a variable of OpenTelemetry says where spans go; its other
variables (service name, sampler, headers, time-outs) work as they do everywhere.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Self

from mooring import __version__

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
SERVICE_NAME = "OTEL_SERVICE_NAME"
LEAST_ERROR_STATUS = 500


class Tracing:
    """Records spans and sends them off in the background."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._provider = provider
        self._tracer = provider.get_tracer("mooring", __version__)
        self._extract = extract
        self._kind = SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)

    @classmethod
    def open(cls, variables: Mapping[str, str]) -> Self | None:
        """Return what records spans, None where nobody has asked for any."""
        exporter = variables.get(EXPORTER, "otlp" if any(variables.get(name) for name in ENDPOINTS) else "none")
        if exporter == "none" or variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
        except ImportError as error:
            logger.warning("No spans are recorded: %s. Install mooring[otel].", error)
            return None
        name = {} if variables.get(SERVICE_NAME) else {"service.name": "mooring"}
        provider = TracerProvider(resource=Resource.create(name))
        chosen = ConsoleSpanExporter() if exporter == "console" else OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(chosen))
        return cls(provider)

    def record(
        self, name: str, seconds: float, status: int, headers: Mapping[str, str], attributes: Mapping[str, str]
    ) -> None:
        """Record a request that has just been answered."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=self._extract(headers),
            kind=self._kind,
            attributes={**attributes, "http.response.status_code": status},
            start_time=ended - int(seconds * 1e9),
        )
        if status >= LEAST_ERROR_STATUS:
            span.set_status(self._error)
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
