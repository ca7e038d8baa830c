"""FastAPI by hand, as most people begin: `uvicorn benchmarks.peer_apps.fastapi_app:app --workers N`."""

import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/invocations")
def invocations(rows: list[list[float]]) -> Any:
    """Answer with the model's output."""
    return session.run(None, {"x": np.asarray(rows, np.float32)})[0].tolist()
