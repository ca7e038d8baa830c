"""The handler for a bare ONNX model: no code needed, requests batched where the model shows that it allows it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mooring.contract.errors import MooringError
from mooring.handler import codecs
from mooring.handler.errors import ModelLoadError, PredictionError
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.tensors import InputReader, Inputs, InputSpec, answer_value

logger = logging.getLogger(__name__)

Array = NDArray[Any]

# Beyond this many rows a batch gains little and the first request of it waits for the last.
MAX_BATCH_ROWS = 64
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class OnnxHandler:
    """An onnxruntime session behind the handler protocol."""

    def __init__(self, session: ort.InferenceSession, reader: InputReader, outputs: Sequence[str], rows: int) -> None:
        self.max_batch_rows = rows
        self._session = session
        self._reader = reader
        self._outputs = tuple(outputs)
        self._run = session.run

    @classmethod
    def load(cls, file: Path, threads: int) -> "OnnxHandler":
        """Load an .onnx file, and find out whether its rows may be batched. Raises `ModelLoadError`."""
        try:
            session = ort.InferenceSession(str(file), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception classes share no base but this
            raise ModelLoadError(file, _without_paths(error, file)) from error
        specs = []
        for given in session.get_inputs():
            if given.type not in DTYPES:
                raise ModelLoadError(file, f"its input '{given.name}' is a {given.type}, which no body can carry")
            shape = tuple(size if isinstance(size, int) else None for size in given.shape)
            specs.append(InputSpec(given.name, np.dtype(DTYPES[given.type]), shape))
        outputs = [output.name for output in session.get_outputs()]
        rows = MAX_BATCH_ROWS if _may_batch(session, specs) else 1
        return cls(session, InputReader(tuple(specs)), outputs, rows)

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, those of one shape together."""
        answers: list[InferenceResponse | Exception] = [PredictionError("unanswered")] * len(requests)
        groups: dict[Any, list[tuple[int, Inputs]]] = {}
        for index, request in enumerate(requests):
            try:
                inputs = self._reader.read(request.body, request.content_type)
            except MooringError as error:
                answers[index] = error
                continue
            groups.setdefault(_shape_key(inputs), []).append((index, inputs))
        for group in groups.values():
            self._answer_group(group, requests, answers)
        return answers

    def _answer_group(
        self,
        group: list[tuple[int, Inputs]],
        requests: Sequence[InferenceRequest],
        answers: list[InferenceResponse | Exception],
    ) -> None:
        try:
            outputs = self._predict([inputs for _, inputs in group])
        except MemoryError as error:
            outputs = [error] * len(group)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base but this
            outputs = self._predict_alone([inputs for _, inputs in group], error)
        for (index, inputs), output in zip(group, outputs, strict=True):
            answers[index] = output if isinstance(output, Exception) else self._encode(output, inputs, requests[index])

    def _predict(self, group: list[Inputs]) -> list[Any]:
        """Run a group as one batch; returns each request's list of outputs."""
        if len(group) == 1:
            return [self._run(self._outputs, group[0].arrays)]
        names = group[0].arrays
        batch = {name: np.concatenate([inputs.arrays[name] for inputs in group]) for name in names}
        outputs = self._run(self._outputs, batch)
        parts, start = [], 0
        for inputs in group:
            stop = start + inputs.rows
            parts.append([output[start:stop] for output in outputs])
            start = stop
        return parts

    def _predict_alone(self, group: list[Inputs], cause: Exception) -> list[Any]:
        """Run each request of a failed batch by itself, so that only the one at fault is told."""
        if len(group) == 1:
            logger.warning("The model failed.", exc_info=cause)
            return [PredictionError(f"The model failed on this input: {_first_line(cause)}")]
        results: list[Any] = []
        for inputs in group:
            try:
                results += self._predict([inputs])
            except Exception as error:  # noqa: BLE001 - as above
                results += self._predict_alone([inputs], error)
        return results

    def _encode(self, output: list[Array], inputs: Inputs, request: InferenceRequest) -> InferenceResponse | Exception:
        value = answer_value(list(zip(self._outputs, output, strict=True)), is_single=inputs.is_single)
        try:
            return InferenceResponse(*codecs.encode(value, request.accept))
        except MooringError as error:
            return error

    def close(self) -> None:
        """Drop the session; its memory goes with the last reference."""
        del self._session, self._run


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores from the other models of the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors reach us as exceptions; warnings would flood the log for every model
    return options


def _shape_key(inputs: Inputs) -> Any:
    """What rows must share to run as one batch; a single input, the usual case, is compared by its shape alone."""
    return tuple(array.shape[1:] for array in inputs.arrays.values())


def _may_batch(session: ort.InferenceSession, specs: Sequence[InputSpec]) -> bool:
    """Whether rows are independent: all inputs and outputs share one symbolic first dimension, and a trial agrees."""
    ends = [*session.get_inputs(), *session.get_outputs()]
    if any(not end.shape or not isinstance(end.shape[0], str) for end in ends):
        return False
    if len({end.shape[0] for end in ends}) != 1 or any(spec.dtype.kind == "O" for spec in specs):
        return False
    generator = np.random.default_rng(0)
    rows = [{spec.name: _trial(spec, generator) for spec in specs} for _ in range(2)]
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    try:
        together = session.run(None, batch)
        alone = [session.run(None, row) for row in rows]
    except Exception:  # a model that refuses made-up rows is run as its clients send them
        logger.debug("The model does not run on made-up rows, so it is not batched.", exc_info=True)
        return False
    return all(
        np.allclose(output, np.concatenate([first[index], second[index]]), rtol=1e-3, atol=1e-5, equal_nan=True)
        for first, second in [alone]
        for index, output in enumerate(together)
    )


def _trial(spec: InputSpec, generator: np.random.Generator) -> Array:
    """Make one row that fits an input: small whole numbers, which even an embedding's index accepts."""
    shape = [1, *(size or 1 for size in spec.shape[1:])]
    return generator.integers(0, 2, shape).astype(spec.dtype)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _without_paths(error: Exception, file: Path) -> str:
    """onnxruntime's sentences name the file in full; a client is told its name only."""
    return _first_line(error).replace(str(file), file.name).replace(str(file.parent), ".")
