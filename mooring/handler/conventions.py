"""What the earlier toolkits gave to functions, what they made of what functions return, and their default functions."""

import contextlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import codecs
from .answers import plain, to_bytes
from .chunks import is_stream
from .errors import BodyDecodeError, HandlerError, ModelLoadError
from .media_types import CSV, JSON, parse
from .open_inference import adds_up
from .protocol import InferenceRequest, InferenceResponse
from .terms import LoadTerms

# What functions get as text; everything else they get as bytes.
TEXT_TYPES = frozenset({JSON, CSV})
ACCEPT_VARIABLE = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"
ANY = "*/*"
# Beyond this an array of text is one of objects, which takes no more than the texts themselves.
MOST_TEXT_BYTES = 64 << 20
CHARACTER_BYTES = 4
# Where a JSON object holds the inputs, beside others.
INPUT_KEYS = ("inputs", "instances")


def body_of(request: InferenceRequest) -> str | bytes:
    """Return the body as functions get it. Raises `BodyDecodeError` for text in another encoding than it says."""
    media_type = parse(content_type_of(request))
    return codecs.decode_text(request.body, media_type) if media_type.name in TEXT_TYPES else request.body


def content_type_of(request: InferenceRequest) -> str:
    """Return the content type, JSON where the client sent none: the toolkits failed then."""
    return request.content_type or JSON


def accept_of(request: InferenceRequest, terms: LoadTerms) -> str:
    """Return the Accept header, the container's default where the client sent none or takes anything."""
    if request.accept.strip() in ("", ANY):
        return terms.variables.get(ACCEPT_VARIABLE) or JSON
    return request.accept


def written(result: Any, accept: str, default: str = JSON) -> tuple[Any, str]:
    """Return body, or stream, and content type that a function's result means; the default where nobody names a type.

    Raises `HandlerError` for values that cannot be sent.
    """
    body, content_type = result, ""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        body, content_type = result
    is_whole = isinstance(body, (str, bytes, bytearray, memoryview))
    try:
        if is_whole or is_stream(body):
            return (to_bytes(body) if is_whole else body), _stated(content_type) or _stated(accept) or default
        return codecs.encode_json(plain(body)), _stated(content_type) or JSON
    except UnicodeEncodeError as error:
        raise HandlerError(f"The model's code returned text that is no Unicode: {error}.") from error
    except TypeError as error:
        raise HandlerError(f"The model's code returned something that cannot be sent: {error}.") from error


@lru_cache(maxsize=256)
def _stated(accept: str) -> str:
    """Return the type that an Accept header likes best among those it names in full, empty if it names none."""
    if accept and not any(sign in accept for sign in ",*") and "q" not in parse(accept).parameters:
        return accept
    best, best_weight = "", -1.0
    for part in accept.split(","):
        named = parse(part)
        weight = _weight(named.parameters.get("q", "1"))
        if named.name and "*" not in named.name and weight > best_weight:
            best, best_weight = named.name, weight
    return best


def _weight(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        return 1.0


# --- default functions ------------------------------------------------------------------------------------------------


def default_model(model_dir: Path, terms: LoadTerms) -> Any:
    """Return the TorchScript model of a folder whose code defines no model_fn. Raises `HandlerError`."""
    found = (file for pattern in ("*.pt", "*.pth") for file in sorted(model_dir.glob(pattern)))
    files = [file for file in found if not file.name.startswith(".")]
    chosen = [file for file in files if file.stem == "model"] or files
    if len(chosen) != 1:
        raise HandlerError(
            "The model's code defines no model_fn(model_dir), which has to return the loaded model, and there is no "
            "single TorchScript file (model.pt) to load in its place."
        )
    from .defaults.torch_program import load_torchscript

    try:
        return load_torchscript(chosen[0], terms)
    except ModelLoadError as error:
        raise HandlerError(
            f"The model's code defines no model_fn(model_dir), and {chosen[0].name} is no TorchScript file that could "
            "be loaded in its place."
        ) from error


def default_input(request: InferenceRequest, model: Any) -> Any:
    """Return a body as an array, for a torch module as a tensor on its device, and a JSON object as it is.

    Raises `UnsupportedContentTypeError`, `BodyDecodeError`.
    """
    content_type = content_type_of(request)
    value = codecs.decode(request.body, content_type)
    torch = sys.modules.get("torch")
    is_torch = torch is not None and isinstance(model, torch.nn.Module)
    if is_torch and isinstance(value, dict):
        value = next((value[key] for key in INPUT_KEYS if key in value), value)
    if isinstance(value, list):
        value = _as_array(value, content_type)
    if torch is None or not is_torch or not isinstance(value, np.ndarray):
        return value
    # JSON and CSV say nothing of types: the toolkit made floats of them, and kept what .npy says.
    dtype = torch.float32 if parse(content_type).name in TEXT_TYPES else None
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        return torch.as_tensor(np.ascontiguousarray(value), dtype=dtype, device=device)
    except TypeError as error:
        raise BodyDecodeError(content_type, "it holds no numbers") from error


def _as_array(value: list[Any], content_type: str) -> Any:
    try:
        return np.asarray(value, dtype=object if _is_wide_text(value) else None)
    except ValueError as error:
        raise BodyDecodeError(content_type, "its rows have different lengths") from error


def _is_wide_text(value: list[Any]) -> bool:
    """Whether an array of a list's texts, which gives each the room of the longest, would be larger than it is worth.

    Raises `ValueError` for lists of different lengths, which an array of objects could hold.
    """
    if adds_up(value):
        return False
    objects = np.array(value, dtype=object)
    items = objects.ravel().tolist()
    if list in set(map(type, items)):
        raise ValueError("lists of different lengths")
    longest = max((len(item) for item in items if isinstance(item, str)), default=0)
    return len(items) * longest * CHARACTER_BYTES > MOST_TEXT_BYTES


def default_predict(data: Any, model: Any) -> Any:
    """Return what a model makes of its input: called, or asked to predict if it cannot be called.

    `{"inputs": …, "parameters": {…}}` is taken apart, as the Hugging Face toolkit did for its pipelines.
    """
    call = model if callable(model) else getattr(model, "predict", None)
    if call is None:
        raise HandlerError(f"The model is a {type(model).__name__}, which cannot be called: define predict_fn.")
    with _no_grad():
        if isinstance(data, dict) and "inputs" in data:
            return call(data["inputs"], **(data.get("parameters") or {}))
        return call(data)


@contextlib.contextmanager
def _no_grad() -> Iterator[None]:
    """Leave out what only training needs, where torch is in use; nothing is imported for it."""
    torch = sys.modules.get("torch")
    with contextlib.nullcontext() if torch is None else torch.no_grad():
        yield


def default_output(prediction: Any, request: InferenceRequest, accept: str) -> InferenceResponse:
    """Return a prediction as the client likes it best, or in the protocol in which it asked.

    Raises `UnsupportedAcceptError`, `TensorRequestError`, `HandlerError` for values that cannot be written.
    """
    if isinstance(prediction, dict):
        prediction = {name: plain(value) for name, value in prediction.items()}
    try:
        return codecs.respond(plain(prediction), request, accept)
    except (TypeError, UnicodeEncodeError) as error:
        raise HandlerError(f"The model's prediction cannot be sent: {error}.") from error
