"""The models that are measured, each with a request for it and the right answer."""

import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers import PEERS

JSON = "application/json"
NPY = "application/x-npy"
# Between one row at a time and many together, floats differ in their last digits.
TOLERANCE = 1e-3
SEQUENCE = 32
EXPORTED = PEERS / "models"


@dataclass(frozen=True)
class Model:
    """An ONNX model of one input, and the one request that is sent to it."""

    name: str
    file: Path
    rows: NDArray[Any]
    is_raw: bool = False  # sent as an array file: as text, the parser would be measured
    fills_cores: bool = True

    @functools.cached_property
    def input_name(self) -> str:
        """What the model calls its input."""
        session = onnxruntime.InferenceSession(self.file, providers=["CPUExecutionProvider"])
        return str(session.get_inputs()[0].name)

    @functools.cached_property
    def answer(self) -> NDArray[Any]:
        """The right answer's numbers in a row."""
        session = onnxruntime.InferenceSession(self.file, providers=["CPUExecutionProvider"])
        output: NDArray[Any] = session.run(None, {self.input_name: self.rows})[0]
        return output.ravel()

    def is_answered_by(self, body: bytes) -> bool:
        """Whether an answer in any of the peers' forms has the right numbers."""
        given = json.loads(body)
        values = np.asarray(given["outputs"][0]["data"] if isinstance(given, dict) else given, float).ravel()
        return values.shape == self.answer.shape and np.allclose(values, self.answer, rtol=TOLERANCE, atol=TOLERANCE)


# What turns a model's rows into the body of a request.
Body = Callable[[Model], bytes]


def as_rows(model: Model) -> bytes:
    """Return the rows as they are."""
    if model.is_raw:
        file = io.BytesIO()
        np.save(file, model.rows)
        return file.getvalue()
    return json.dumps(model.rows.tolist()).encode()


def as_named_rows(model: Model) -> bytes:
    """Return the rows as an argument called so."""
    return json.dumps({"rows": model.rows.tolist()}).encode()


def as_tensors(model: Model) -> bytes:
    """Return the rows in the Open Inference Protocol."""
    kind = "INT64" if model.rows.dtype == np.int64 else "FP32"
    tensor = {"name": "rows", "shape": model.rows.shape, "datatype": kind, "data": model.rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def content_type(model: Model) -> str:
    """Return what the body of a request is."""
    return NPY if model.is_raw else JSON


def tiny(folder: Path) -> Model:
    """Return y = 2x for three floats: all that is measured is the server."""
    file = exported("tiny", folder)
    return Model("tiny", file, np.array([[1, 2, 3]], np.float32), fills_cores=False)


def minilm(folder: Path) -> Model:
    """Return a sentence's embedding from its token ids."""
    ids = np.random.default_rng(0).integers(1000, 20_000, (1, SEQUENCE))
    return Model("minilm", exported("minilm", folder), ids.astype(np.int64))


def resnet(folder: Path) -> Model:
    """Return an image's class from its pixels."""
    pixels = np.random.default_rng(0).random((1, 3, 224, 224), np.float32) * 255
    return Model("resnet", exported("resnet", folder), pixels, is_raw=True)


MODELS: dict[str, Callable[[Path], Model]] = {"tiny": tiny, "minilm": minilm, "resnet": resnet}


def exported(name: str, folder: Path = EXPORTED) -> Path:
    """Return a model's file, made once, by a process of its own: the exporter's memory is not to stay here."""
    file = folder / name / "model.onnx"
    if not file.exists():
        print(f"writing the model {name} (once)…", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.serving_suite.exports", name, str(file)], check=True)
    return file
