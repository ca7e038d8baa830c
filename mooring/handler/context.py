"""The context that handlers may ask for: what was sent with a request, and what goes with its answer.

Made anew for each call, so that what a handler reads is this request's and nobody else's; the methods are those of
multi-model-server and TorchServe. `idx` is the place of a request in a batch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mooring import __version__

from .protocol import InferenceRequest, InferenceResponse

logger = logging.getLogger("mooring.metrics")

# As the earlier servers wrote them into lines of the log, which metric filters read.
UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "B": "Bytes",
    "kB": "Kilobytes",
    "MB": "Megabytes",
    "GB": "Gigabytes",
}


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Headers(dict[str, str]):
    """A request's headers, found by their names in any case."""

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key.lower())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a header, or the default where there is none."""
        return super().get(key.lower(), default)


class RequestProperties:
    """One request's headers, and its answer's, under the method names that handlers of the earlier servers call."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self.response_phrase = ""
        self.response_headers: dict[str, str] = {}
        self.response_content_type: str | None = None
        self.response_status = 200

    def get_request_properties(self) -> dict[str, str]:
        """Return all headers."""
        return Headers(self._headers)

    def get_request_property(self, key: str) -> str | None:
        """Return one header, whatever its case."""
        return self._headers.get(key.lower())

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the answer's status code; HTTP clients do not look at the phrase."""
        self.response_status = code
        self.response_phrase = reason_phrase or ""

    def get_response_status_code(self) -> int:
        """Return the answer's status code."""
        return self.response_status

    def get_response_status_phrase(self) -> str:
        """Return the phrase that was given with it."""
        return self.response_phrase

    def add_response_property(self, key: str, value: Any) -> None:
        """Add a header to the answer."""
        if key.lower() == "content-type":
            self.response_content_type = str(value)
        else:
            self.response_headers[key.lower()] = str(value)

    def get_response_headers(self) -> dict[str, str]:
        """Return the headers that were added."""
        typed = {} if self.response_content_type is None else {"content-type": self.response_content_type}
        return Headers({**self.response_headers, **typed})

    def get_response_header(self, key: str) -> str | None:
        """Return one of the headers that were added."""
        return self.get_response_headers().get(key)


class Metrics:
    """What a handler counts and measures: each becomes a line of the log."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name

    def add_metric(self, name: str, value: Any, *place_and_unit: Any, unit: str | None = None, **_: Any) -> None:
        """Log any metric. The earlier servers disagree on the order of unit and place in the batch: either will do."""
        given = unit or next((each for each in place_and_unit if isinstance(each, str)), None)
        shown = UNITS.get(given or "", given or "Unit")
        logger.info("%s.%s:%s|#ModelName:%s,Level:Model", name, shown, value, self._model_name)

    def add_counter(self, name: str, value: Any, idx: int | None = None, **_: Any) -> None:
        """Log a count."""
        self.add_metric(name, value, "count")

    def add_time(self, name: str, value: Any, idx: int | None = None, unit: str = "ms", **_: Any) -> None:
        """Log a duration."""
        self.add_metric(name, value, unit)

    def add_size(self, name: str, value: Any, idx: int | None = None, unit: str = "MB", **_: Any) -> None:
        """Log a size."""
        self.add_metric(name, value, unit)

    def add_percent(self, name: str, value: Any, idx: int | None = None, **_: Any) -> None:
        """Log a share."""
        self.add_metric(name, value, "percent")

    def add_error(self, name: str, value: Any, **_: Any) -> None:
        """Log an error."""
        self.add_metric(name, value, "Error")


class Context:
    """What a handler may know of the requests it answers, of its model and of its machine."""

    def __init__(
        self,
        model_dir: Path,
        requests: Sequence[InferenceRequest] = (),
        *,
        gpu_id: int | None = None,
        manifest: Mapping[str, Any] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.model_name = model_dir.name
        self.manifest = dict(manifest or {})
        self.system_properties = {
            "model_dir": str(model_dir),
            "gpu_id": gpu_id,
            "batch_size": batch_size,
            "server_name": "mooring",
            "server_version": __version__,
            "limit_max_image_pixels": True,
        }
        # Of TorchServe: its handlers look at these, which no model has here.
        self.explain = False
        self.model_yaml_config: dict[str, Any] = {}
        self.request_processor = [RequestProperties(request.headers) for request in requests] or [RequestProperties({})]
        self.metrics = Metrics(self.model_name)
        self._requests = requests

    @property
    def session_id(self) -> str | None:
        """The stateful session that the request belongs to, None outside of one."""
        return self.get_request_header(0, "x-amzn-sagemaker-session-id")

    @property
    def session_dir(self) -> str | None:
        """A folder for what a handler keeps of the session; it goes when the session ends."""
        return self.get_request_header(0, "x-mooring-session-dir")

    def is_cancelled(self, idx: int = 0) -> bool:
        """Whether the client is gone; a handler that computes for long may ask now and then, and stop."""
        return idx < len(self._requests) and self._requests[idx].is_cancelled()

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of a request."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Return all headers of a request."""
        return self.request_processor[idx].get_request_properties()

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the platform's id of a request, if it gave one."""
        return self.get_request_header(idx, "x-amzn-sagemaker-inference-id")

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Say what an answer is, over what the function returns."""
        self.request_processor[idx].add_response_property("content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return what was set, None if nothing was."""
        return self.request_processor[idx].response_content_type

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set an answer's status code; HTTP clients do not look at the phrase."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status code of every answer."""
        for properties in self.request_processor:
            properties.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """Return an answer's status code and phrase."""
        properties = self.request_processor[idx]
        return properties.response_status, properties.response_phrase

    def set_response_header(self, idx: int, key: str, value: Any) -> None:
        """Add a header to an answer."""
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers that were added to an answer."""
        return self.request_processor[idx].get_response_headers()

    def response(
        self, body: bytes, content_type: str, idx: int = 0, chunks: Any = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> InferenceResponse:
        """Return an answer with what was set for it here."""
        properties = self.request_processor[idx]
        return InferenceResponse(
            body,
            properties.response_content_type or content_type or "application/json",
            properties.response_status,
            {**headers, **properties.response_headers},
            chunks,
        )
