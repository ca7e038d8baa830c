"""LitServe with its own batching: `python -m benchmarks.serving_suite.peer_apps.litserve_app PORT WORKERS`."""

import sys
from typing import Any

import litserve
import numpy as np

from .job import MOST_ROWS, Job


class Rows(litserve.LitAPI):  # type: ignore[misc]
    """The four steps that LitServe asks for."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.job = Job()

    def decode_request(self, request: list[Any]) -> Any:
        """Return a request's rows."""
        return self.job.read(request)

    def batch(self, inputs: list[Any]) -> Any:
        """Put requests together."""
        return np.concatenate(inputs)

    def predict(self, rows: Any) -> Any:
        """Run the model."""
        return self.job.run(rows)

    def unbatch(self, output: Any) -> list[Any]:
        """Take them apart."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """Return an answer's rows."""
        return [output.tolist()]


if __name__ == "__main__":
    api = Rows(max_batch_size=MOST_ROWS, batch_timeout=0.0, api_path="/invocations")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
