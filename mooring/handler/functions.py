"""The handler for a model that brings code: the functions of its `inference.py`, called as the earlier toolkits did."""

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mooring.contract.errors import MooringError

from . import codecs
from .context import Context
from .errors import HandlerError
from .media_types import parse
from .protocol import InferenceRequest, InferenceResponse

logger = logging.getLogger(__name__)

# Function -> its arguments without the context.
FUNCTIONS = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("request_body", "content_type"),
    "predict_fn": ("input_object", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "request_body", "content_type", "accept"),
}
STEPS_OF_TRANSFORM = ("input_fn", "predict_fn", "output_fn")


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's module, and whether it wants the context after its other arguments."""

    name: str
    call: Callable[..., Any]
    takes_context: bool

    def __call__(self, context: Context, *arguments: Any) -> Any:
        """Call it. What it raises becomes a `HandlerError` without the details, which go to the log."""
        try:
            return self.call(*arguments, context) if self.takes_context else self.call(*arguments)
        except (MooringError, MemoryError):
            raise
        except Exception as error:  # the user's code may raise anything
            logger.exception("%s raised.", self.name)
            raise HandlerError(
                f"The model's {self.name} raised {type(error).__name__}; the server's log has the details."
            ) from error


def user_functions(module: ModuleType) -> dict[str, UserFunction]:
    """Return the functions that a module defines. Raises `HandlerError` for signatures that cannot be called."""
    found = {
        name: UserFunction(name, getattr(module, name), _takes_context(name, getattr(module, name), arguments))
        for name, arguments in FUNCTIONS.items()
        if callable(getattr(module, name, None))
    }
    also = [name for name in STEPS_OF_TRANSFORM if name in found]
    if "transform_fn" in found and also:
        raise HandlerError(f"transform_fn takes the place of {', '.join(also)}: define it, or them, not both.")
    if "model_fn" not in found:
        raise HandlerError("The model's code defines no model_fn(model_dir), which has to return the loaded model.")
    return found


def _takes_context(name: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    """By the number of positional parameters: the context is the one beyond the function's own."""
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = sum(kind in by_place for kind in kinds)
    if positional == len(arguments) + 1:
        return True
    if positional == len(arguments) or inspect.Parameter.VAR_POSITIONAL in kinds:
        return False
    wanted = ", ".join(arguments)
    raise HandlerError(f"{name} takes {positional} arguments; expected {name}({wanted}) or {name}({wanted}, context).")


class FunctionHandler:
    """A user's functions behind the handler protocol, one request at a time."""

    max_batch_rows = 1

    def __init__(self, functions: dict[str, UserFunction], model: Any, model_dir: Path) -> None:
        self._functions = functions
        self._model = model
        self._model_dir = model_dir

    @classmethod
    def load(cls, script: Path, model_dir: Path) -> "FunctionHandler":
        """Import the script and load its model, in a process of its own: it changes sys.path. Raises `HandlerError`."""
        functions = user_functions(_import(script))
        context = Context(model_dir)
        if "pre_model_fn" in functions:
            functions["pre_model_fn"](context, str(model_dir))
        model = functions["model_fn"](context, str(model_dir))
        if "model_warmup_fn" in functions:
            functions["model_warmup_fn"](context, str(model_dir), model)
        return cls(functions, model, model_dir)

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, each with a context of its own."""
        answers: list[InferenceResponse | Exception] = []
        for request in requests:
            try:
                answers.append(self._respond_to_one(request))
            except (MooringError, MemoryError) as error:
                answers.append(error)
        return answers

    def _respond_to_one(self, request: InferenceRequest) -> InferenceResponse:
        context = Context(self._model_dir, request)
        media_type = parse(request.content_type)
        body: str | bytes = request.body
        if media_type.name in codecs.TEXT_TYPES:
            body = codecs.decode_text(request.body, media_type)
        if "transform_fn" in self._functions:
            result = self._functions["transform_fn"](context, self._model, body, request.content_type, request.accept)
        else:
            result = self._in_steps(context, body, request)
        return _response(result, request.accept, context)

    def _in_steps(self, context: Context, body: str | bytes, request: InferenceRequest) -> Any:
        functions = self._functions
        if "input_fn" in functions:
            data = functions["input_fn"](context, body, request.content_type)
        else:
            data = _default_input(request)
        if "predict_fn" in functions:
            prediction = functions["predict_fn"](context, data, self._model)
        else:
            prediction = UserFunction("model", self._model, takes_context=False)(context, data)
        if "output_fn" in functions:
            return functions["output_fn"](context, prediction, request.accept)
        return codecs.encode(prediction, request.accept)

    def close(self) -> None:
        """Drop the model; its process ends next."""
        self._model = None


def _import(script: Path) -> ModuleType:
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{script.name} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except Exception as error:  # the user's code may raise anything
        logger.exception("Importing %s failed.", script.name)
        raise HandlerError(
            f"Importing {script.name} raised {type(error).__name__}; the server's log has the details."
        ) from error
    return module


def _default_input(request: InferenceRequest) -> Any:
    """What the earlier toolkits' default gave to predict_fn: an array, except for a JSON object."""
    decoded = codecs.decode(request.body, request.content_type or "application/json")
    return np.asarray(decoded) if isinstance(decoded, list) else decoded


def _response(result: Any, accept: str, context: Context) -> InferenceResponse:
    body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, accept)
    if not isinstance(body, (str, bytes, bytearray, memoryview)):
        body = codecs.encode_json(body)
    encoded = body.encode() if isinstance(body, str) else bytes(body)
    return InferenceResponse(
        encoded,
        context.response_content_type or content_type or "application/json",
        context.response_status,
        context.response_headers,
    )
