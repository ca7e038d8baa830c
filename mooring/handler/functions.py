"""The handler for a model that brings code: the functions of its `inference.py`, called as the earlier toolkits did.

Functions may be plain, `async`, or generators; `MAX_BATCH_ROWS` in the module lets `predict_fn` take several inputs.
"""

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mooring.contract.errors import MooringError

from . import codecs
from .answers import is_stream, plain, to_response
from .context import Context
from .errors import HandlerError
from .media_types import CSV, JSON, parse
from .protocol import InferenceRequest, InferenceResponse
from .signatures import ContextPlace, UserFunction
from .terms import LoadTerms
from .user_module import user_code

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
BATCH_SIZE_NAME = "MAX_BATCH_ROWS"
# What the earlier toolkits gave to functions as text; everything else as bytes.
TEXT_TYPES = frozenset({JSON, CSV})
# Requests to asynchronous functions that run at the same time.
ASYNC_REQUESTS = 64


def user_functions(module: ModuleType) -> dict[str, UserFunction]:
    """Return the functions that a module defines. Raises `HandlerError` for signatures that cannot be called."""
    found = {
        name: UserFunction.inspect(name, getattr(module, name), arguments)
        for name, arguments in FUNCTIONS.items()
        if callable(getattr(module, name, None))
    }
    also = [name for name in STEPS_OF_TRANSFORM if name in found]
    if "transform_fn" in found and also:
        raise HandlerError(f"transform_fn takes the place of {', '.join(also)}: define it, or them, not both.")
    return found


class FunctionHandler:
    """A user's functions behind the handler protocol."""

    def __init__(
        self, functions: dict[str, UserFunction], model: Any, model_dir: Path, terms: LoadTerms, batch_rows: int = 1
    ) -> None:
        self._functions = functions
        self._model = model
        self._model_dir = model_dir
        self._terms = terms
        self._is_batched = batch_rows > 1 and "transform_fn" not in functions
        self._loop: asyncio.AbstractEventLoop | None = None
        is_async = any(function.is_async for function in functions.values())
        if is_async:
            self._loop = asyncio.new_event_loop()
        self.max_batch_rows = batch_rows if self._is_batched else ASYNC_REQUESTS if is_async else 1

    @classmethod
    def load(cls, module: ModuleType, model_dir: Path, terms: LoadTerms) -> "FunctionHandler":
        """Load the model of an imported module. Raises `HandlerError`."""
        functions = user_functions(module)
        rows = getattr(module, BATCH_SIZE_NAME, 1)
        if not isinstance(rows, int) or rows < 1:
            raise HandlerError(f"{BATCH_SIZE_NAME} is {rows!r}; expected a whole number above 0.")
        handler = cls(functions, None, model_dir, terms, rows)
        handler._load_model()
        return handler

    def _load_model(self) -> None:
        context = self._context()
        functions, folder = self._functions, str(self._model_dir)
        if "pre_model_fn" in functions:
            self._finish(functions["pre_model_fn"](context, folder))
        if "model_fn" in functions:
            self._model = self._finish(functions["model_fn"](context, folder))
        elif "transform_fn" not in functions:
            self._model = default_model(self._model_dir, self._terms)
        if "model_warmup_fn" in functions:
            self._finish(functions["model_warmup_fn"](context, folder, self._model))

    def _context(self, requests: Sequence[InferenceRequest] = ()) -> Context:
        return Context(self._model_dir, requests, gpu_id=self._terms.gpu_id)

    def _finish(self, result: Any) -> Any:
        """Return a result, awaited if it has to be."""
        if not inspect.isawaitable(result):
            return result
        self._loop = self._loop or asyncio.new_event_loop()
        with user_code("The model's code"):
            return self._loop.run_until_complete(result)

    # --- requests ---------------------------------------------------------------------------------------------------

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests, each with a context of its own."""
        if self._is_batched:
            return self._respond_to_batch(requests)
        if self._loop is not None:
            return self._loop.run_until_complete(self._respond_at_once(requests))
        return [self._respond_to_one(request) for request in requests]

    def _respond_to_one(self, request: InferenceRequest) -> InferenceResponse | Exception:
        context = self._context([request])
        try:
            if "transform_fn" in self._functions:
                result = self._functions["transform_fn"](context, *self._transform_arguments(request))
            else:
                result = self._output(context, request, self._predict(context, self._input(context, request)))
            return to_response(result, request.accept, context)
        except (MooringError, MemoryError) as error:
            return error

    def _transform_arguments(self, request: InferenceRequest) -> tuple[Any, ...]:
        return self._model, _body(request), request.content_type or JSON, request.accept

    def _input(self, context: Context, request: InferenceRequest) -> Any:
        if "input_fn" in self._functions:
            return self._functions["input_fn"](context, _body(request), request.content_type or JSON)
        return default_input(request, self._model)

    def _predict(self, context: Context, data: Any) -> Any:
        if "predict_fn" in self._functions:
            return self._functions["predict_fn"](context, data, self._model)
        with _no_grad():
            return UserFunction("model", self._model, ContextPlace.NOWHERE)(context, data)

    def _output(self, context: Context, request: InferenceRequest, prediction: Any) -> Any:
        if "output_fn" in self._functions:
            return self._functions["output_fn"](context, prediction, request.accept)
        return prediction if is_stream(prediction) else codecs.encode(plain(prediction), request.accept)

    # --- several at once --------------------------------------------------------------------------------------------

    async def _respond_at_once(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        return await asyncio.gather(*(self._respond_async(request) for request in requests))

    async def _respond_async(self, request: InferenceRequest) -> InferenceResponse | Exception:
        context = self._context([request])
        try:
            with user_code("The model's code"):
                if "transform_fn" in self._functions:
                    transformed = self._functions["transform_fn"](context, *self._transform_arguments(request))
                    result = await _awaited(transformed)
                else:
                    data = await _awaited(self._input(context, request))
                    prediction = await _awaited(self._predict(context, data))
                    result = await _awaited(self._output(context, request, prediction))
            return to_response(result, request.accept, context, loop=self._loop)
        except (MooringError, MemoryError) as error:
            return error

    def _respond_to_batch(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Predict several inputs with one call; what is wrong with one request spoils no other's answer."""
        contexts = [self._context([request]) for request in requests]
        answers: list[InferenceResponse | Exception] = []
        inputs: dict[int, Any] = {}
        for index, (context, request) in enumerate(zip(contexts, requests, strict=True)):
            answers.append(HandlerError("unanswered"))
            try:
                inputs[index] = self._finish(self._input(context, request))
            except (MooringError, MemoryError) as error:
                answers[index] = error
        try:
            predictions = self._predict_batch(contexts, inputs)
        except (MooringError, MemoryError) as error:
            return [error if index in inputs else answers[index] for index in range(len(requests))]
        for index, prediction in zip(inputs, predictions, strict=True):
            context, request = contexts[index], requests[index]
            try:
                result = self._finish(self._output(context, request, prediction))
                answers[index] = to_response(result, request.accept, context, loop=self._loop)
            except (MooringError, MemoryError) as error:
                answers[index] = error
        return answers

    def _predict_batch(self, contexts: list[Context], inputs: dict[int, Any]) -> Sequence[Any]:
        if not inputs:
            return []
        given = [contexts[index] for index in inputs]
        if "predict_fn" in self._functions:
            made = self._finish(self._functions["predict_fn"](given, list(inputs.values()), self._model))
        else:
            with _no_grad():
                made = UserFunction("model", self._model, ContextPlace.NOWHERE)(given, list(inputs.values()))
        predictions = list(made)
        if len(predictions) != len(inputs):
            raise HandlerError(
                f"The model's predict_fn was given {len(inputs)} inputs and returned {len(predictions)} predictions; "
                f"with {BATCH_SIZE_NAME} set it has to return one for each."
            )
        return predictions

    def close(self) -> None:
        """Drop the model; its process ends next."""
        self._model = None


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _body(request: InferenceRequest) -> str | bytes:
    media_type = parse(request.content_type or JSON)
    return codecs.decode_text(request.body, media_type) if media_type.name in TEXT_TYPES else request.body


def _no_grad() -> contextlib.AbstractContextManager[Any]:
    """Return torch's inference mode where torch is in use; nothing is imported for it."""
    torch = sys.modules.get("torch")
    return contextlib.nullcontext() if torch is None else torch.inference_mode()


def default_input(request: InferenceRequest, model: Any) -> Any:
    """Return what the earlier toolkits' default gave to predict_fn: an array or tensor, except for a JSON object."""
    decoded = codecs.decode(request.body, request.content_type or JSON)
    array = np.asarray(decoded) if isinstance(decoded, list) else decoded
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module) or not isinstance(array, np.ndarray):
        return array
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    # JSON and CSV say nothing of types: the toolkits made floats of them, and kept what .npy says.
    is_typed = parse(request.content_type or JSON).name not in TEXT_TYPES
    return tensor.to(device) if is_typed else tensor.to(device, torch.float32)


def default_model(model_dir: Path, terms: LoadTerms) -> Any:
    """Return the TorchScript model of a folder whose code defines no model_fn. Raises `HandlerError`."""
    files = [file for pattern in ("*.pt", "*.pth") for file in sorted(model_dir.glob(pattern))]
    chosen = [file for file in files if file.stem == "model"] or files
    if len(chosen) != 1:
        raise HandlerError(
            "The model's code defines no model_fn(model_dir), which has to return the loaded model, and there is no "
            "single TorchScript file (model.pt) to load in its place."
        )
    from .defaults.torch_program import load_torchscript

    return load_torchscript(chosen[0], terms)
