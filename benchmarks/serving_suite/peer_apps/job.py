"""The one job that every hand-written peer does: rows in, the model's output for them out. MODEL names the model."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NPY = b"\x93NUMPY"
MOST_ROWS = 64
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Job:
    """A session, with threads as it is told by THREADS."""

    def __init__(self, file: str | Path = "") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("THREADS", "1"))
        file = str(file or os.environ["MODEL"])
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        end = self.session.get_inputs()[0]
        self.name, self.dtype = end.name, DTYPES[end.type]

    def read(self, body: Any) -> Any:
        """Return the rows of a body: an array file, JSON, or what a server has made of JSON already."""
        if isinstance(body, (bytes, bytearray)):
            if body.startswith(NPY):
                return np.load(io.BytesIO(body))
            body = json.loads(body)
        return np.asarray(body, self.dtype)

    def run(self, rows: Any) -> Any:
        """Return the model's output."""
        return self.session.run(None, {self.name: rows})[0]

    def run_together(self, requests: Sequence[Any]) -> list[Any]:
        """Return each request's output, all of them run as one batch."""
        output = self.run(np.concatenate(requests))
        return np.split(output, np.cumsum([len(rows) for rows in requests])[:-1])
