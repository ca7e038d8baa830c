"""LitServe with its own batching: `python -m benchmarks.peer_apps.litserve_app PORT WORKERS`."""

import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime


class Tiny(litserve.LitAPI):  # type: ignore[misc]
    """The four steps that LitServe asks for."""

    def setup(self, device: str) -> None:
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: list[Any]) -> Any:
        """Return a request's rows."""
        return np.asarray(request, np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        """Put requests together."""
        return np.concatenate(inputs)

    def predict(self, x: Any) -> Any:
        """Run the model."""
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output: Any) -> list[Any]:
        """Take them apart."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """Return an answer's rows."""
        return [output.tolist()]


if __name__ == "__main__":
    api = Tiny(max_batch_size=64, batch_timeout=0.0, api_path="/invocations")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[2]))
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
