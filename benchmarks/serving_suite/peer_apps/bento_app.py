"""BentoML with its adaptive batching: `bentoml serve benchmarks.serving_suite.peer_apps.bento_app:Rows --port PORT`."""

import os

import bentoml
import numpy as np

from .job import MOST_ROWS, Job


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")))
class Rows:
    """One batchable call."""

    def __init__(self) -> None:
        self.job = Job()

    @bentoml.api(route="/invocations", batchable=True, max_batch_size=MOST_ROWS, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def invocations(self, rows: np.ndarray) -> np.ndarray:
        """Answer with the model's output."""
        output: np.ndarray = self.job.run(self.job.read(rows))
        return output
