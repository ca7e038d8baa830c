"""The context that handler functions may ask for: what was sent with the request, and what goes with its answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mooring import __version__

from .protocol import InferenceRequest


class RequestProperties:
    """One request's headers, under the method names that handlers of the earlier servers call."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def get_request_properties(self) -> dict[str, str]:
        """Return all headers."""
        return dict(self._headers)

    def get_request_property(self, key: str) -> str | None:
        """Return one header, whatever its case."""
        return self._headers.get(key.lower())


class Context:
    """Made anew for each request, so that what a handler reads is this request's and nobody else's."""

    def __init__(self, model_dir: Path, request: InferenceRequest | None = None, gpu_id: int | None = None) -> None:
        self.model_name = model_dir.name
        self.manifest: dict[str, Any] = {}
        self.system_properties = {
            "model_dir": str(model_dir),
            "gpu_id": gpu_id,
            "batch_size": 1,
            "server_name": "mooring",
            "server_version": __version__,
        }
        self.request_processor = [RequestProperties(request.headers if request else {})]
        self.response_headers: dict[str, str] = {}
        self.response_content_type: str | None = None
        self.response_status = 200

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of the request."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Return all headers of the request."""
        return self.request_processor[idx].get_request_properties()

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the platform's id of the request, if it gave one."""
        return self.get_request_header(idx, "x-amzn-sagemaker-inference-id")

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Say what the answer is, over what the function returns."""
        self.response_content_type = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the answer's status code; HTTP clients do not look at the phrase."""
        self.response_status = code

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Add a header to the answer."""
        self.response_headers[key.lower()] = value
