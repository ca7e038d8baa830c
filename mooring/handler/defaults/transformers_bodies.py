"""Bodies of requests to transformers models, as the Hugging Face containers take them: `inputs` and `parameters`."""

import base64
import binascii
import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from mooring.handler import codecs, open_inference_answers
from mooring.handler.errors import (
    BodyDecodeError,
    PredictionInputError,
    UnsupportedAcceptError,
    UnsupportedContentTypeError,
)
from mooring.handler.media_types import CSV, JSON, JSON_LINES, MediaType, negotiate, parse
from mooring.handler.open_inference import (
    BINARY_PARAMETER,
    TYPES,
    TensorRequest,
    TensorRequestError,
    decode_request,
)
from mooring.handler.protocol import InferenceRequest, InferenceResponse

TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"
# Keys of a request beside its inputs. `options` is for the hosted service, and means nothing here.
BESIDE_INPUTS = frozenset({"parameters", "stream", "options"})
AUDIO = tuple(f"audio/{name}" for name in ("x-flac", "flac", "mpeg", "mp3", "wave", "wav", "x-wav", "ogg", "x-audio"))
JSON_TYPES = (JSON, JSON_LINES)
PLAIN = (str, int, float, type(None))  # what a cell of a table can hold
IMAGES = ("application/x-image", "image/*")


class Medium(StrEnum):
    """What a task's inputs are made of."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"


@dataclass(frozen=True)
class Item:
    """Inputs and the parameters they came with. The inputs are text, objects of text, lists of these, or a file."""

    inputs: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_cancelled: Callable[[], bool] = bool  # whether nobody waits for the answer any more

    def option(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """Return a parameter. Raises `PredictionInputError` if it is of another kind."""
        value = self.parameters.get(name)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if not fits:
            expected = " or ".join(one.__name__ for one in kinds)
            raise PredictionInputError(f"Parameter '{name}' has to be of type {expected}.", (f"'{name}', {expected}",))
        return value

    def check_parameters(self, known: tuple[str, ...]) -> None:
        """Raise `PredictionInputError` for a parameter that the task does not have: it would be without effect."""
        unknown = sorted(set(self.parameters) - set(known))
        if unknown:
            problem = f"There is no parameter {', '.join(map(repr, unknown))} for this task."
            raise PredictionInputError(problem, (f"the parameters {', '.join(known)}",))


@dataclass(frozen=True)
class Call:
    """A request as items: one, or in JSON Lines one a line, each with an answer of its own."""

    items: tuple[Item, ...]
    is_many: bool
    streams: bool
    request: InferenceRequest

    def respond(self, values: list[Any]) -> InferenceResponse:
        """Return the answer to the request from those to its items. Raises `UnsupportedAcceptError`."""
        value = values if self.is_many else values[0]
        if parse(self.request.content_type).name in TYPES:
            return open_inference_answers.respond(columns(value), self.request)
        return InferenceResponse(*encode_answer(value, self.request.accept))


def read_call(request: InferenceRequest, medium: Medium) -> Call:
    """Return what a request asks. Raises `UnsupportedContentTypeError`, `BodyDecodeError`, `PredictionInputError`."""
    media_type = parse(request.content_type or JSON)
    streams = parse(request.accept.partition(",")[0]).name == EVENT_STREAM
    is_many = media_type.name == JSON_LINES
    if media_type.name == JSON:
        value = codecs.decode_json(request.body, media_type)
        items = [_item(value)]
        streams = streams or (isinstance(value, dict) and value.get("stream") is True)
    elif is_many:
        items = [_item(value) for value in codecs.decode_json_lines(request.body, media_type)]
    elif medium is Medium.TEXT and media_type.name == TEXT:
        items = [Item(codecs.decode_text(request.body, media_type))]
    elif medium is Medium.TEXT and media_type.name == CSV:
        items = [Item(_table(request.body, media_type))]
    elif _is_file(media_type, medium):
        items = [Item(request.body)]
    elif media_type.name in TYPES:
        items = [_tensors(decode_request(request.body, media_type), medium)]
    else:
        raise UnsupportedContentTypeError(request.content_type, accepted(medium))
    if not items:
        raise BodyDecodeError(media_type.name, "it has no lines")
    if medium is not Medium.TEXT:
        items = [Item(_files(item.inputs, medium), item.parameters) for item in items]
    items = [replace(item, is_cancelled=request.is_cancelled) for item in items]
    return Call(tuple(items), is_many, streams, request)


def accepted(medium: Medium) -> tuple[str, ...]:
    """Return the content types of a medium."""
    return (JSON, JSON_LINES, *{Medium.TEXT: (TEXT, CSV), Medium.IMAGE: IMAGES, Medium.AUDIO: AUDIO}[medium])


def encode_answer(value: Any, accept: str) -> tuple[bytes, str]:
    """Return an answer as the type that a client likes best: objects also as CSV with a header, vectors as all types.

    Raises `UnsupportedAcceptError`.
    """
    if (
        isinstance(value, dict)
        and set(value) == {"embeddings"}
        and negotiate(accept, codecs.WRITABLE) not in JSON_TYPES
    ):
        value = value["embeddings"]
    if isinstance(value, np.ndarray) and value.ndim == 1 and negotiate(accept, codecs.WRITABLE) == CSV:
        value = value[None]  # a vector is a row
    if not _has_objects(value):
        return codecs.encode(value, accept)
    offered = (JSON, JSON_LINES, CSV)
    wanted = negotiate(accept, offered)
    if wanted is None:
        raise UnsupportedAcceptError(accept, offered)
    return (_csv(value, accept), CSV) if wanted == CSV else codecs.encode(value, wanted)


def _item(value: Any) -> Item:
    if not isinstance(value, dict):
        return Item(value)
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise PredictionInputError("'parameters' is no object.", ("'inputs' and 'parameters'",))
    if "inputs" in value:
        return Item(value["inputs"], parameters)
    return Item({name: inner for name, inner in value.items() if name not in BESIDE_INPUTS}, parameters)


def _tensors(asked: TensorRequest, medium: Medium) -> Item:
    """Return named tensors of BYTES as a list: of texts or files where there is one, else of objects of texts."""
    parameters = {name: value for name, value in asked.parameters.items() if name != BINARY_PARAMETER}
    problem = [f"'{name}'" for name, array in asked.arrays.items() if array.dtype.kind != "O"]
    if problem:
        raise TensorRequestError(f"the model takes {medium}s, as BYTES; {', '.join(problem)} holds numbers")
    lists = {name: array.ravel().tolist() for name, array in asked.arrays.items()}
    if medium is not Medium.TEXT:
        if len(lists) > 1:
            raise TensorRequestError(f"the model has one input, of {medium}s")
        return Item(next(iter(lists.values())), parameters)
    try:
        texts = {name: [item.decode() for item in items] for name, items in lists.items()}
    except UnicodeDecodeError as error:
        raise TensorRequestError("an input is no UTF-8") from error
    if len(texts) == 1:
        return Item(next(iter(texts.values())), parameters)
    if len({len(items) for items in texts.values()}) > 1:
        raise TensorRequestError("its inputs have different lengths")
    return Item([dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)], parameters)


def columns(value: Any) -> dict[str, Any]:
    """Return an answer as named tensors: numbers, what rows of one form hold under each name, else JSON a row."""
    rows = value if isinstance(value, list) else [value]
    if all(isinstance(row, np.ndarray) and row.shape == rows[0].shape for row in rows):
        return {"output_0": np.stack(rows) if isinstance(value, list) else rows[0]}
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    if names and all(isinstance(row, dict) and list(row) == names and _is_flat(row) for row in rows):
        return {name: np.array([row[name] for row in rows]) for name in names}
    return {"output_0": np.array([codecs.encode_json(row).decode() for row in rows], dtype=object)}


def _is_flat(row: Mapping[str, Any]) -> bool:
    return all(isinstance(cell, (str, int, float)) for cell in row.values())


def _table(body: bytes, media_type: MediaType) -> list[Any]:
    """Return the rows under a header: texts where there is one column, else objects."""
    try:
        rows = list(csv.DictReader(io.StringIO(codecs.decode_text(body, media_type), newline=""), strict=True))
    except csv.Error as error:
        raise BodyDecodeError(CSV, str(error)) from error
    header = list(rows[0]) if rows else []
    if header not in (["inputs"], ["text"]) and not {"question", "context"} <= set(header):
        raise BodyDecodeError(
            CSV, "the first line has to name the columns, inputs or question,context, and rows follow"
        )
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise BodyDecodeError(CSV, f"row {number} has not as many columns as the header")
    return [row[header[0]] for row in rows] if len(header) == 1 else list(rows)


def _is_file(media_type: MediaType, medium: Medium) -> bool:
    if medium is Medium.IMAGE:
        return media_type.name == IMAGES[0] or media_type.name.startswith("image/")
    return medium is Medium.AUDIO and media_type.name in AUDIO


def _files(inputs: Any, medium: Medium) -> Any:
    """Return files as bytes: a body as it is, in JSON a text of base 64, or several."""
    if isinstance(inputs, bytes):
        return inputs
    if isinstance(inputs, list):
        return [_files(one, medium) for one in inputs]
    expected = (f"an {medium} as the body, or as text of base 64 in 'inputs'",)
    if not isinstance(inputs, str):
        raise PredictionInputError("The inputs are neither a file nor a text.", expected)
    if inputs.startswith(("http://", "https://", "s3://", "file://", "/")):
        raise PredictionInputError("Addresses are not fetched.", expected)
    try:
        return base64.b64decode(inputs.partition("base64,")[2] or inputs, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PredictionInputError("The text is not base 64.", expected) from error


def _has_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(_has_objects(one) for one in value))


def _csv(value: Any, accept: str) -> bytes:
    rows = value if isinstance(value, list) else [value]
    rows = [one for row in rows for one in (row if isinstance(row, list) else [row])]
    flat = all(
        isinstance(row, dict) and not any(isinstance(cell, (list, dict)) for cell in row.values()) for row in rows
    )
    if not flat:
        raise UnsupportedAcceptError(f"{accept} (the answer is no table)", (JSON, JSON_LINES))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
