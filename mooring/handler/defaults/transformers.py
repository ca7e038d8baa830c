"""The handler for a model that transformers saved: config.json, weights and tokenizer, and no code."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mooring.contract.errors import MooringError
from mooring.handler import codecs
from mooring.handler.errors import ModelLoadError, PredictionError, PredictionInputError
from mooring.handler.media_types import JSON_LINES, parse
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.stages import timed
from mooring.handler.tasks import Task, task_of_folder
from mooring.handler.terms import LoadTerms

from .model_cache import Tier
from .torch_weights import HeldWeights, first_line, memory_error
from .transformers_bodies import EVENT_STREAM, Call, read_call
from .transformers_classification import TextClassification, ZeroShotClassification
from .transformers_embeddings import FeatureExtraction, SentenceEmbeddings
from .transformers_generation import Piece
from .transformers_media import AudioClassification, ImageClassification, SpeechRecognition
from .transformers_rows import Row, RowTask
from .transformers_spans import QuestionAnswering
from .transformers_text2text import Text2Text, TextGeneration
from .transformers_tokens import FillMask, TokenClassification

logger = logging.getLogger(__name__)

LOADERS: dict[Task, Callable[[Path, LoadTerms], RowTask]] = {
    Task.TEXT_CLASSIFICATION: TextClassification.load,
    Task.TOKEN_CLASSIFICATION: TokenClassification.load,
    Task.QUESTION_ANSWERING: QuestionAnswering.load,
    Task.FILL_MASK: FillMask.load,
    Task.ZERO_SHOT_CLASSIFICATION: ZeroShotClassification.load,
    Task.FEATURE_EXTRACTION: FeatureExtraction.load,
    Task.SENTENCE_EMBEDDINGS: SentenceEmbeddings.load,
    Task.TEXT_GENERATION: TextGeneration.load,
    Task.IMAGE_CLASSIFICATION: ImageClassification.load,
    Task.SPEECH_RECOGNITION: SpeechRecognition.load,
    Task.AUDIO_CLASSIFICATION: AudioClassification.load,
}


@dataclass(frozen=True)
class _Plan:
    """A request with the rows of each of its items."""

    index: int
    call: Call
    rows: tuple[list[Row], ...]

    @property
    def all_rows(self) -> list[Row]:
        return [row for rows in self.rows for row in rows]


def _load_task(folder: Path, terms: LoadTerms) -> RowTask:
    chosen = terms.config.task or terms.variables.get("HF_TASK") or ""
    task = task_of_folder(folder, chosen)
    try:
        if task in LOADERS:
            return LOADERS[task](folder, terms)
        return Text2Text.load(folder, terms, task, chosen or task)
    except MooringError:
        raise
    except Exception as error:  # the trial of a model may raise anything
        raise memory_error(error) or ModelLoadError(folder / "config.json", first_line(error, folder)) from error


class TransformersHandler:
    """A task of a transformers model behind the handler protocol."""

    def __init__(self, task: RowTask, folder: Path, terms: LoadTerms, held: HeldWeights) -> None:
        self._task = task
        self._folder = folder
        self._terms = terms
        self._held = held
        self.max_batch_rows = task.max_batch_rows

    @classmethod
    def load(cls, folder: Path, terms: LoadTerms) -> "TransformersHandler":
        """Load the model of a folder for its task, and find out whether its rows may be batched.

        Raises `TaskError`, `ModelLoadError`, `MemoryError`.
        """
        held = HeldWeights.of(folder, terms)
        return cls(_load_task(folder, replace(terms, held=held)), folder, terms, held)

    def change_tier(self, wanted: str) -> None:
        """Hold the model in another form; requests are answered from the old one until the new one is there.

        Raises `ModelLoadError` if the cache has no such form of it, and what loading it raises.
        """
        held = HeldWeights.of(self._folder, self._terms)
        if held.tier is not Tier(wanted):
            raise ModelLoadError(self._folder / "config.json", f"it has no form that is {wanted}")
        self._task, self._held = _load_task(self._folder, replace(self._terms, held=held)), held

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, the rows of all of them together where that changes nothing."""
        answers: list[InferenceResponse | Exception] = [PredictionError("unanswered")] * len(requests)
        plans = []
        with timed("decode"):
            for index, request in enumerate(requests):
                try:
                    call = read_call(request, self._task.medium)
                    if call.streams:
                        answers[index] = self._streamed(call)
                    else:
                        plans.append(_Plan(index, call, tuple(self._task.rows(item) for item in call.items)))
                except Exception as error:  # noqa: BLE001 - tokenizers and decoders raise anything
                    answers[index] = _told(error)
        with timed("predict"):
            made = self._outputs(plans)
        with timed("encode"):
            for plan, outputs in zip(plans, made, strict=True):
                answers[plan.index] = outputs if isinstance(outputs, Exception) else self._answered(plan, outputs)
        return answers

    def metadata(self) -> dict[str, Any]:
        """Return what the model takes, in the words of the Open Inference Protocol; what it gives is its task's."""
        inputs = [{"name": "inputs", "datatype": "BYTES", "shape": [-1]}]
        return {"platform": "transformers", "inputs": inputs, **self._held.metadata()}

    def close(self) -> None:
        """Drop the model; its memory goes with the last reference."""
        del self._task

    def _outputs(self, plans: Sequence[_Plan]) -> list[list[Any] | Exception]:
        """Return each request's outputs. After a failure each runs by itself, so that only the one at fault is told."""
        if not plans:
            return []
        try:
            outputs = iter(self._task.run([row for plan in plans for row in plan.all_rows]))
        except Exception as error:  # noqa: BLE001 - models raise anything
            told = _told(error)
            if len(plans) == 1 or isinstance(told, MemoryError):
                return [told] * len(plans)
            return [one for plan in plans for one in self._outputs([plan])]
        return [[next(outputs) for _ in plan.all_rows] for plan in plans]

    def _answered(self, plan: _Plan, outputs: Sequence[Any]) -> InferenceResponse | Exception:
        values = []
        remaining = iter(outputs)
        try:
            for item, rows in zip(plan.call.items, plan.rows, strict=True):
                values.append(self._task.answer(item, rows, [next(remaining) for _ in rows]))
            return plan.call.respond(values)
        except Exception as error:  # noqa: BLE001 - as above
            return _told(error)

    def _streamed(self, call: Call) -> InferenceResponse:
        if not isinstance(self._task, (TextGeneration, Text2Text)) or len(call.items) != 1:
            raise PredictionInputError("Only generated text can be streamed, one text at a time.", ("no 'stream'",))
        pieces = self._task.stream(call.items[0])
        as_lines = parse(call.request.accept.partition(",")[0]).name == JSON_LINES
        content_type = JSON_LINES if as_lines else EVENT_STREAM
        return InferenceResponse(b"", content_type, chunks=_chunks(pieces, as_lines=as_lines))


def _chunks(pieces: Iterator[Piece], *, as_lines: bool) -> Iterator[bytes]:
    """Write pieces as events or lines; the last holds the whole text. Raises `MemoryError`, `PredictionError`."""
    so_far = ""
    try:
        for piece in pieces:
            so_far += piece.text
            event = _event(piece, so_far)
            yield codecs.encode_json(event) + b"\n" if as_lines else b"data: " + codecs.encode_json(event) + b"\n\n"
    except Exception as error:  # the model may raise anything
        raise _told(error) from error


def _event(piece: Piece, so_far: str) -> dict[str, Any]:
    details = {"finish_reason": piece.finish_reason, "generated_tokens": piece.count} if piece.finish_reason else None
    return {
        "index": piece.count,
        "token": {"id": piece.token, "text": piece.text},
        "generated_text": so_far if details else None,
        "details": details,
    }


def _told(error: Exception) -> Exception:
    """Return an error as it goes to the client, without what a library's sentence may tell of the machine."""
    if isinstance(error, MooringError):
        return error
    memory = memory_error(error)
    if memory is not None:
        memory.__cause__ = error
        return memory
    logger.warning("The model failed.", exc_info=error)
    told = PredictionError(f"The model failed on this input: {type(error).__name__}; the server's log has the details.")
    told.__cause__ = error
    return told
