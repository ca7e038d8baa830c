"""The handler for a bare ONNX model: no code needed, requests batched where the model shows that it allows it."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mooring.contract.errors import MooringError
from mooring.handler import codecs, open_inference_answers
from mooring.handler.errors import LoadCancelledError, ModelLoadError, PredictionError
from mooring.handler.images import SCALED, PictureFit
from mooring.handler.open_inference import TensorRequest
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.stages import WATCH, timed
from mooring.handler.tensors import Alike, InputReader, Inputs, InputSpec, answer_value, answer_values, answers_each
from mooring.handler.terms import LoadTerms

from .model_cache import Tier
from .onnx_batching import may_batch, most_rows
from .onnx_sessions import Sessions
from .onnx_tiers import Form

logger = logging.getLogger(__name__)

Array = NDArray[Any]

# Above this, all bodies of a batch together, they are read one by one.
MOST_ALIKE_BYTES = 1 << 18
# All of an absolute path but its last name.
FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/\"':]*/)*")
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

    def __init__(
        self,
        sessions: Sessions,
        reader: InputReader,
        outputs: Sequence[str],
        rows: int,
        form: Form,
    ) -> None:
        self.max_batch_rows = rows
        self._form = form
        self._sessions = sessions
        self._reader = reader
        self._outputs = tuple(outputs)

    @classmethod
    def load(cls, file: Path, terms: LoadTerms) -> "OnnxHandler":
        """Load an .onnx file, and find out whether its rows may be batched. Raises `ModelLoadError`."""
        form = Form.first(file, terms)
        try:
            sessions = form.open()
        except LoadCancelledError:
            raise
        except Exception as error:  # onnxruntime's own exception classes share no base but this
            raise ModelLoadError(file, _without_paths(error)) from error
        specs = []
        session = sessions.whole
        for given in session.get_inputs():
            if given.type not in DTYPES:
                raise ModelLoadError(file, f"its input '{given.name}' is a {given.type}, which no body can carry")
            shape = tuple(size if isinstance(size, int) else None for size in given.shape)
            specs.append(InputSpec(given.name, np.dtype(DTYPES[given.type]), shape))
        outputs = [output.name for output in session.get_outputs()]
        rows = most_rows(specs, terms.threads) if may_batch(session, specs) else 1
        return cls(sessions, InputReader(tuple(specs), _picture_fit(session, specs, file)), outputs, rows, form)

    def metadata(self) -> dict[str, Any]:
        """Return what the model takes and gives, in the words of the Open Inference Protocol, and how it is held."""
        session = self._sessions.whole
        ends = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
        described = {name: [_described(end) for end in found] for name, found in ends.items()}
        return {"platform": "onnxruntime_onnx", **described, **self._form.metadata()}

    def change_tier(self, wanted: str) -> None:
        """Hold the model in another form; requests are answered from the old one until the new one is there.

        Raises `ModelLoadError` if the cache has no such form of it.
        """
        form = self._form.changed(Tier(wanted))
        self._sessions, self._form = form.open(by_rows=self.max_batch_rows > 1), form

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, those of one shape together, as many as have `max_batch_rows` rows between them.

        One whose inputs have different numbers of rows runs alone: in a batch it would get rows of others.
        """
        together = self._answer_alike(requests)
        if together is not None:
            return together
        with timed("decode"):
            read = [self._read(request) for request in requests]
        if len(read) == 1 and isinstance(read[0], Inputs):
            return self._answer_batch([read[0]], requests)
        answers: list[Any] = read  # errors are answers; what was read becomes one below
        groups: dict[Any, list[int]] = {}
        for index, inputs in enumerate(read):
            if isinstance(inputs, Inputs):
                groups.setdefault(_shape_key(inputs) if inputs.agree_in_rows else index, []).append(index)
        rows = {index: inputs.rows for index, inputs in enumerate(read) if isinstance(inputs, Inputs)}
        for group in groups.values():
            for batch in _batches(group, rows, self.max_batch_rows):
                made = self._answer_batch([answers[index] for index in batch], [requests[index] for index in batch])
                for index, answer in zip(batch, made, strict=True):
                    answers[index] = answer
        return answers

    def _answer_alike(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception] | None:
        """Answer requests that differ in their numbers only, as under load most do; None if they differ in more.

        Nor is one answered here that the model fails on: which it was, the slower way finds out.
        """
        if len(requests) > 1 and not _are_similar(requests):
            return None
        begun = perf_counter()
        alike = self._reader.read_alike([each.body for each in requests], requests[0].content_type)
        if alike is None:
            return None
        read = perf_counter()
        try:
            values = self._predict_alike(alike, len(requests))
        except Exception:  # as below
            logger.debug("A batch failed and is run again in parts.", exc_info=True)
            return None
        predicted = perf_counter()
        answers = self._encode_alike(values, requests[0].accept)
        WATCH.add(read - begun, predicted - read, perf_counter() - predicted)
        return answers

    def _predict_alike(self, alike: Alike, requests: int) -> list[Any]:
        """Return what to encode for each request. Of one that is alone it is all: its model may know no rows."""
        size = alike.rows_each
        if requests == 1:
            outputs = self._sessions.run(self._outputs, alike.arrays, size)
            return [answer_value(self._outputs, outputs, is_single=alike.is_single)]
        most = max(1, self.max_batch_rows // size) * size
        values: list[Any] = []
        for begin in range(0, requests * size, most):
            batch = {name: array[begin : begin + most] for name, array in alike.arrays.items()}
            outputs = self._run_rows(batch, min(most, requests * size - begin))
            values += answers_each(self._outputs, outputs, size, is_single=alike.is_single)
        return values

    def _encode_alike(self, values: Sequence[Any], accept: str) -> list[InferenceResponse | Exception]:
        try:
            return [InferenceResponse(body, content_type) for body, content_type in codecs.encode_each(values, accept)]
        except Exception:  # noqa: BLE001 - whatever it is, each request is told of its own below
            return [_answered(partial(_response, value, accept)) for value in values]

    def _read(self, request: InferenceRequest) -> Inputs | Exception:
        try:
            return self._reader.read(request.body, request.content_type)
        except (MooringError, MemoryError) as error:
            return error
        except Exception as error:  # whatever it is, it is no other request's
            logger.warning("A body cannot be read.", exc_info=True)
            return PredictionError(
                f"The body cannot be read: {type(error).__name__}; the server's log has the details."
            )

    def _answer_batch(
        self, batch: list[Inputs], requests: Sequence[InferenceRequest]
    ) -> list[InferenceResponse | Exception]:
        try:
            with timed("predict"):
                outputs = self._predict(batch)
        except MemoryError as error:
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base but this
            outputs = self._predict_alone(batch, error)
        with timed("encode"):
            return [
                output
                if isinstance(output, Exception)
                else self._encode(output, request, is_single=inputs.is_single, asked=inputs.request)
                for output, inputs, request in zip(outputs, batch, requests, strict=True)
            ]

    def _predict(self, group: list[Inputs]) -> list[Any]:
        """Run a group as one batch; returns each request's list of outputs."""
        if len(group) == 1:
            return [self._sessions.run(self._outputs, group[0].arrays, group[0].rows)]
        names = group[0].arrays
        batch = {name: np.concatenate([inputs.arrays[name] for inputs in group]) for name in names}
        outputs = self._run_rows(batch, sum(inputs.rows for inputs in group))
        parts, start = [], 0
        for inputs in group:
            stop = start + inputs.rows
            parts.append([output[start:stop] for output in outputs])
            start = stop
        return parts

    def _run_rows(self, batch: Mapping[str, Array], rows: int) -> list[Array]:
        """Return the outputs for the rows of several requests.

        Raises `ValueError` where there are more or fewer: a model may drop rows, and nobody knows whose.
        """
        outputs = self._sessions.run(self._outputs, batch, rows)
        for output in outputs:
            if len(output) != rows:
                raise ValueError(f"The model was given {rows} rows and answered {len(output)}.")
        return outputs

    def _predict_alone(self, group: list[Inputs], cause: Exception) -> list[Any]:
        """Run each request of a failed batch by itself, so that only the one at fault is told."""
        if len(group) == 1:
            logger.warning("The model failed.", exc_info=cause)
            return [PredictionError(f"The model failed on this input: {_without_paths(cause)}")]
        results: list[Any] = []
        for inputs in group:
            try:
                results += self._predict([inputs])
            except Exception as error:  # noqa: BLE001 - as above
                results += self._predict_alone([inputs], error)
        return results

    def _encode(
        self, output: list[Array], request: InferenceRequest, *, is_single: bool, asked: TensorRequest | None = None
    ) -> InferenceResponse | Exception:
        if asked is not None:
            return _answered(partial(self._encode_tensors, output, request, asked, is_single=is_single))
        return _answered(lambda: _response(answer_value(self._outputs, output, is_single=is_single), request.accept))

    def _encode_tensors(
        self, output: list[Array], request: InferenceRequest, asked: TensorRequest, *, is_single: bool
    ) -> InferenceResponse:
        named = [*answer_values(self._outputs, output, is_single=is_single).items()]
        model_name = request.headers.get(open_inference_answers.MODEL_NAME_HEADER, "")
        body, content_type, headers = open_inference_answers.encode_response(asked, model_name, named)
        return InferenceResponse(body, content_type, headers=headers)

    def close(self) -> None:
        """Drop the sessions; their memory goes with the last reference."""
        del self._sessions


def _response(value: Any, accept: str) -> InferenceResponse:
    return InferenceResponse(*codecs.encode(value, accept))


def _answered(write: Callable[[], InferenceResponse]) -> InferenceResponse | Exception:
    """Return an answer as it is written, or what is to be told instead."""
    try:
        return write()
    except (MooringError, MemoryError) as error:
        return error
    except TypeError as error:  # an output that is no tensor, and that the type of the answer does not know
        return PredictionError(f"The model's output cannot be written: {error}")
    except Exception as error:  # whatever it is, it is no other request's
        logger.warning("An output cannot be written.", exc_info=True)
        problem = f"The model's output cannot be written: {type(error).__name__}; the server's log has the details."
        return PredictionError(problem)


def _picture_fit(session: ort.InferenceSession, specs: Sequence[InputSpec], file: Path) -> PictureFit:
    """Return how pictures come to a model's size, as it says itself. Raises `ModelLoadError`."""
    if not any(spec.image_shape for spec in specs):
        return SCALED
    try:
        return PictureFit.of(session.get_modelmeta().custom_metadata_map)
    except ValueError as error:
        raise ModelLoadError(file, f"its metadata cannot be used: {error}") from error


def _described(end: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in end.shape]
    known = DTYPES.get(end.type)
    datatype = end.type if known is None else open_inference_answers.datatype_of(np.dtype(known))
    return {"name": end.name, "datatype": datatype, "shape": shape}


def _are_similar(requests: Sequence[InferenceRequest]) -> bool:
    """Whether requests may well be alike, and are small: to find out that large ones are not costs too much."""
    content_type, accept = requests[0].content_type, requests[0].accept
    size = 0
    for request in requests:
        if request.content_type != content_type or request.accept != accept:
            return False
        size += len(request.body)
    return size <= MOST_ALIKE_BYTES


def _batches(group: Sequence[int], rows: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Cut a group so that no batch has too many rows; a request that has more by itself runs alone."""
    batch: list[int] = []
    total = 0
    for index in group:
        if batch and (most == 1 or total + rows[index] > most):
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += rows[index]
    yield batch


def _shape_key(inputs: Inputs) -> Any:
    """What rows must share to run as one batch; a single input, the usual case, is compared by its shape alone."""
    return tuple(array.shape[1:] for array in inputs.arrays.values())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _without_paths(error: Exception) -> str:
    """onnxruntime's sentences name files in full, the model's and its own; a client is told their names only."""
    return FOLDERS.sub("", _first_line(error))
