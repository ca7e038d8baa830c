"""The handler for a model that brings code: the functions of its `inference.py`, called as the earlier toolkits did.

Functions may be plain, `async`, or generators. `MAX_BATCH_ROWS` in the module, or `predict_fn.batch = True`, lets
`predict_fn` take a list of inputs, and a list of contexts, and return a list.
"""

from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mooring.contract.errors import MooringError

from . import conventions
from .chunks import is_stream, open_chunks
from .context import Context
from .conventions import accept_of, body_of, content_type_of, written
from .errors import HandlerError
from .event_loop import EventLoop, is_awaitable
from .protocol import InferenceRequest, InferenceResponse
from .signatures import UserFunction
from .stages import timed
from .terms import LoadTerms
from .user_module import user_code

Answer = InferenceResponse | Exception

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
# Where predict_fn says that it takes a list, and the module does not say how long.
BATCH_ROWS = 32
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


def batch_rows(module: ModuleType) -> int | None:
    """Return how many inputs predict_fn takes at once, None if it takes them one by one. Raises `HandlerError`."""
    predict = getattr(module, "predict_fn", None)
    rows = getattr(module, BATCH_SIZE_NAME, BATCH_ROWS if getattr(predict, "batch", None) is True else None)
    if rows is None:
        return None
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise HandlerError(f"{BATCH_SIZE_NAME} is {rows!r}; expected a whole number above 0.")
    if not callable(predict):
        raise HandlerError(f"{BATCH_SIZE_NAME} is for predict_fn, which the model's code does not define.")
    return rows


class FunctionHandler:
    """A user's functions behind the handler protocol."""

    def __init__(
        self, functions: dict[str, UserFunction], model_dir: Path, terms: LoadTerms, rows: int | None = None
    ) -> None:
        is_async = any(function.is_async for function in functions.values())
        self.max_batch_rows = rows or (ASYNC_REQUESTS if is_async else 1)
        self._functions = functions
        self._model_dir = model_dir
        self._terms = terms
        self._is_batched = rows is not None
        self._model: Any = None
        self._loop = EventLoop()
        if is_async:
            self._loop.loop()

    @classmethod
    def load(cls, module: ModuleType, model_dir: Path, terms: LoadTerms) -> "FunctionHandler":
        """Load the model of an imported module. Raises `HandlerError`."""
        handler = cls(user_functions(module), model_dir, terms, batch_rows(module))
        try:
            handler._loop.run(handler._load_model())
        except BaseException:
            handler.close()
            raise
        return handler

    async def _load_model(self) -> None:
        context, folder = self._context(), str(self._model_dir)
        if "pre_model_fn" in self._functions:
            await self._call("pre_model_fn", context, folder)
        if "model_fn" in self._functions:
            self._model = await self._call("model_fn", context, folder)
        elif "transform_fn" not in self._functions:
            self._model = conventions.default_model(self._model_dir, self._terms)
        if "model_warmup_fn" in self._functions:
            await self._call("model_warmup_fn", context, folder, self._model)

    def respond(self, requests: Sequence[InferenceRequest]) -> list[Answer]:
        """Answer requests, each with a context of its own."""
        if self._is_batched:
            return self._loop.run(self._answer_together(requests))
        return self._loop.run(self._loop.at_once(self._answer(request) for request in requests))

    def close(self) -> None:
        """Drop the model, and end what still runs for it; its process ends next."""
        self._model = None
        self._loop.close()

    def _context(self, requests: Sequence[InferenceRequest] = ()) -> Context:
        return Context(self._model_dir, requests, gpu_id=self._terms.gpu_id)

    # --- one request ------------------------------------------------------------------------------------------------

    async def _answer(self, request: InferenceRequest) -> Answer:
        context = self._context([request])
        try:
            if "transform_fn" in self._functions:
                with timed("predict"):
                    result = await self._transform(context, request)
                return await self._sent(context, request, result)
            data = await self._input(context, request)
            with timed("predict"):
                prediction = await self._predict(context, data)
            return await self._output(context, request, prediction)
        except (MooringError, MemoryError) as error:
            return error

    async def _transform(self, context: Context, request: InferenceRequest) -> Any:
        accept = accept_of(request, self._terms)
        body, content_type = body_of(request), content_type_of(request)
        return await self._call("transform_fn", context, self._model, body, content_type, accept)

    async def _input(self, context: Context, request: InferenceRequest) -> Any:
        with timed("decode"):
            if "input_fn" in self._functions:
                return await self._call("input_fn", context, body_of(request), content_type_of(request))
            return conventions.default_input(request, self._model)

    async def _predict(self, context: Context, data: Any) -> Any:
        if "predict_fn" in self._functions:
            return await self._call("predict_fn", context, data, self._model)
        with user_code("The model"):
            return await self._loop.awaited(conventions.default_predict(data, self._model))

    async def _output(self, context: Context, request: InferenceRequest, prediction: Any) -> InferenceResponse:
        accept = accept_of(request, self._terms)
        with timed("encode"):
            if "output_fn" in self._functions:
                return await self._sent(context, request, await self._call("output_fn", context, prediction, accept))
            if is_stream(prediction):
                return await self._sent(context, request, prediction)
            made = conventions.default_output(prediction, request, accept)
            return context.response(made.body, made.content_type, headers=made.headers)

    async def _sent(self, context: Context, request: InferenceRequest, result: Any) -> InferenceResponse:
        body, content_type = written(result, accept_of(request, self._terms))
        if not is_stream(body):
            return context.response(body, content_type)
        chunks = await open_chunks(body, self._loop)
        return context.response(b"", content_type, chunks=chunks)

    # --- a batch ----------------------------------------------------------------------------------------------------

    async def _answer_together(self, requests: Sequence[InferenceRequest]) -> list[Answer]:
        """Predict several inputs with one call; what is wrong with one request spoils no other's answer."""
        contexts = [self._context([request]) for request in requests]
        answers: list[Any] = await self._loop.at_once(
            self._kept(self._input(*pair)) for pair in zip(contexts, requests, strict=True)
        )
        readable = [index for index, data in enumerate(answers) if not isinstance(data, _Failed)]
        with timed("predict"):
            predictions = await self._predictions([contexts[i] for i in readable], [answers[i] for i in readable])
        for index, prediction in zip(readable, predictions, strict=True):
            answers[index] = prediction
        finished = [self._finished(*each) for each in zip(contexts, requests, answers, strict=True)]
        return await self._loop.at_once(finished)

    async def _predictions(self, contexts: list[Context], inputs: list[Any]) -> list[Any]:
        """Return a prediction or failure for each input. Inputs that fail together are tried one by one."""
        if not inputs:
            return []
        made = await self._kept(self._predicted(contexts, inputs))
        if not isinstance(made, _Failed):
            return list(made)
        if len(inputs) == 1 or isinstance(made.error, MemoryError):
            return [made] * len(inputs)
        alone = [self._predictions([context], [data]) for context, data in zip(contexts, inputs, strict=True)]
        return [prediction for work in alone for prediction in await work]

    async def _predicted(self, contexts: list[Context], inputs: list[Any]) -> list[Any]:
        made = await self._call("predict_fn", contexts, inputs, self._model)
        if not hasattr(made, "__len__") or isinstance(made, (str, bytes, dict)) or len(made) != len(inputs):
            what = f"{len(made)} predictions" if isinstance(made, (list, tuple)) else f"a {type(made).__name__}"
            raise HandlerError(
                f"The model's predict_fn was given a list of {len(inputs)} inputs and returned {what}; it has to "
                "return a list with a prediction for each."
            )
        return list(made)

    async def _finished(self, context: Context, request: InferenceRequest, prediction: Any) -> Answer:
        if isinstance(prediction, _Failed):
            return prediction.error
        try:
            return await self._output(context, request, prediction)
        except (MooringError, MemoryError) as error:
            return error

    async def _kept(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what it returns, or its failure, which nothing that a user's function returns is taken for."""
        try:
            return await work
        except (MooringError, MemoryError) as error:
            return _Failed(error)

    async def _call(self, name: str, context: Context | list[Context], *arguments: Any) -> Any:
        result = self._functions[name](context, *arguments)
        if not is_awaitable(result):
            return result
        with user_code(f"The model's {name}"):
            return await self._loop.awaited(result)


class _Failed:
    """Stands for what could not be had, with the reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error
