"""A custom handler of TorchServe, batched by it: packed by torch-model-archiver."""

import json
import os
from typing import Any

import numpy as np
import onnxruntime


class Tiny:
    """What TorchServe calls for each batch."""

    def initialize(self, context: Any) -> None:
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch."""
        bodies = [row.get("body") or row.get("data") for row in data]
        rows = [np.asarray(json.loads(b) if isinstance(b, (bytes, bytearray, str)) else b, np.float32) for b in bodies]
        output = self.session.run(None, {"x": np.concatenate(rows)})[0]
        ends = np.cumsum([len(one) for one in rows])[:-1]
        return [part.tolist() for part in np.split(output, ends)]
