"""A handler as multi-model-server and TorchServe load it: the model lies beside it, batches are made by the server."""

from pathlib import Path
from typing import Any

from benchmarks.serving_suite.peer_apps.job import Job


class Rows:
    """What is called for each batch."""

    def initialize(self, context: Any) -> None:
        """Load the model."""
        self.job = Job(Path(context.system_properties["model_dir"]) / "model.onnx")

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request of a batch."""
        rows = [self.job.read(request.get("body") or request.get("data")) for request in requests]
        return [output.tolist() for output in self.job.run_together(rows)]


service = Rows()


def handle(data: Any, context: Any) -> Any:
    """Load the model when there is no request yet, else answer: what multi-model-server calls."""
    if data is None:
        service.initialize(context)
        return None
    return service.handle(data, context)
