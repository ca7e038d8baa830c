"""Triton with a model in Python, by way of pytriton: `python -m benchmarks.serving_suite.peer_apps.pytriton_app`."""

import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from .job import MOST_ROWS, Job


def rows_of(job: Job) -> Any:
    """Return what answers a batch."""

    @batch  # type: ignore[untyped-decorator]
    def infer(rows: Any) -> list[Any]:
        return [job.run(rows)]

    return infer


def main() -> None:
    """Serve on the ports given, for HTTP, gRPC and metrics, with so many workers."""
    http, grpc, metrics, workers = map(int, sys.argv[1:5])
    jobs = [Job() for _ in range(workers)]
    (example,) = jobs[0].session.get_inputs()
    config = TritonConfig(http_address="127.0.0.1", http_port=http, grpc_port=grpc, metrics_port=metrics)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="rows",
            infer_func=[rows_of(job) for job in jobs],
            inputs=[Tensor(name="rows", dtype=jobs[0].dtype, shape=tuple(example.shape[1:]))],
            outputs=[Tensor(name="output", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=MOST_ROWS, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
