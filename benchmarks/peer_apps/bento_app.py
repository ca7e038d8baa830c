"""BentoML with its adaptive batching: `bentoml serve benchmarks.peer_apps.bento_app:Tiny --port PORT`."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")))
class Tiny:
    """One batchable call."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(route="/invocations", batchable=True, max_batch_size=64, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def invocations(self, rows: np.ndarray) -> np.ndarray:
        """Answer with the model's output."""
        output: np.ndarray = self.session.run(None, {"x": np.asarray(rows, np.float32)})[0]
        return output
