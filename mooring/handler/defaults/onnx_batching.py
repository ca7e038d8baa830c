"""Whether an ONNX model's rows are independent, so that several requests may run as one batch: found out by trying."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mooring.handler.tensors import InputSpec

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Rows = Mapping[str, Array]

# Beyond this many rows a batch gains little and the first request of it waits for the last.
MAX_BATCH_ROWS = 64
# Nor beyond this many bytes, if each thread has rows enough: what large rows gain, moving them about takes.
MAX_BATCH_BYTES = 4 << 20
ROWS_A_THREAD = 4
# How large a dimension without a size is made, and how large whole numbers are: a sequence of tokens; of ids that know
# only 0 and 1; one of each; a picture. The first that the model runs on decides.
TRIALS = ((4, 97), (4, 2), (1, 2), (32, 97))
# How many rows each made-up request has: unequal, so that one that looks at its place is found out.
ROW_COUNTS = (1, 2)
# Sums in another order differ in their last bits; a row that knows of another, or a scale that is shared, by far more.
RELATIVE = {2: 1e-2, 4: 1e-4, 8: 1e-6}
FATAL = 4


def may_batch(session: ort.InferenceSession, specs: Sequence[InputSpec]) -> bool:
    """Whether rows are independent: all inputs and outputs share one symbolic first dimension, and a trial agrees."""
    ends = [*session.get_inputs(), *session.get_outputs()]
    if any(not end.shape or not isinstance(end.shape[0], str) for end in ends):
        return False
    if len({end.shape[0] for end in ends}) != 1 or any(spec.dtype.kind == "O" for spec in specs):
        return False
    generator = np.random.default_rng(0)
    for size, most in TRIALS:
        requests = [{spec.name: _trial(spec, rows, size, most, generator) for spec in specs} for rows in ROW_COUNTS]
        try:
            return _is_independent(session, requests)
        except Exception:  # a model that refuses made-up rows is run as its clients send them
            logger.debug("The model does not run on made-up rows of size %s.", size, exc_info=True)
    return False


def most_rows(specs: Sequence[InputSpec], threads: int) -> int:
    """Return how many rows of a model are worth running together. A dimension without a size counts as one."""
    row_bytes = sum(spec.dtype.itemsize * math.prod(size or 1 for size in spec.shape[1:]) for spec in specs)
    return min(MAX_BATCH_ROWS, max(ROWS_A_THREAD * threads, MAX_BATCH_BYTES // max(1, row_bytes)))


def _trial(spec: InputSpec, rows: int, size: int, most: int, generator: np.random.Generator) -> Array:
    """Make rows that fit an input: floats above and below zero, or small whole numbers, which are indices perhaps."""
    shape = [rows, *(size if given is None else given for given in spec.shape[1:])]
    if spec.dtype.kind == "f":
        return generator.normal(size=shape).astype(spec.dtype)
    return generator.integers(0, 2 if spec.dtype.kind == "b" else most, shape).astype(spec.dtype)


def _is_independent(session: ort.InferenceSession, requests: Sequence[Rows]) -> bool:
    """Whether requests are answered the same alone, together, and together in another order."""
    alone = [_run(session, request) for request in requests]
    if any(len(part) != rows for parts, rows in zip(alone, ROW_COUNTS, strict=True) for part in parts):
        return False
    if not any(_tells_rows_apart(parts) for parts in zip(*alone, strict=True)):
        return False  # such answers would be the same however much rows knew of each other
    orders = (range(len(requests)), range(len(requests) - 1, -1, -1))
    return all(_agree(session, [requests[i] for i in order], [alone[i] for i in order]) for order in orders)


def _agree(session: ort.InferenceSession, requests: Sequence[Rows], alone: Sequence[Sequence[Array]]) -> bool:
    batch = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
    together = _run(session, batch)
    apart = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    return all(_same(output, expected) for output, expected in zip(together, apart, strict=True))


def _tells_rows_apart(parts: Sequence[Array]) -> bool:
    rows = np.concatenate(parts)
    is_number = rows == rows  # what is none is not equal to itself, and tells nothing
    return bool(np.any((rows != rows[:1]) & is_number))


def _same(output: Array, expected: Array) -> bool:
    if output.shape != expected.shape:
        return False
    if np.array_equal(output, expected):
        return True  # nearly always, and ten times faster found out than that they are close
    if output.dtype.kind != "f":
        return False
    relative = RELATIVE[output.dtype.itemsize]
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(output, expected, rtol=relative, atol=relative * largest, equal_nan=True))


def _run(session: ort.InferenceSession, rows: Rows) -> list[Array]:
    options = ort.RunOptions()
    options.log_severity_level = FATAL  # that a trial fails is no error
    return [np.asarray(output) for output in session.run(None, rows, options)]
