"""The handler for services as multi-model-server has them: `handle(data, context)`, or a class with `initialize`.

`data` is a list with one mapping per request: its body, or the fields of its form; `handle` returns a list as long.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mooring.contract.errors import MooringError

from .chunks import is_stream, open_chunks
from .context import Context
from .conventions import written
from .errors import HandlerError
from .event_loop import EventLoop
from .functions import FUNCTIONS, FunctionHandler
from .media_types import FORM, JSON, MULTIPART, parse
from .multipart import decode_form, decode_multipart
from .protocol import Handler, InferenceRequest, InferenceResponse
from .service_entry import read_manifest
from .stages import timed
from .terms import LoadTerms
from .user_module import import_module, import_script, user_code

FORMS: dict[str, Callable[..., dict[str, Any]]] = {MULTIPART: decode_multipart, FORM: decode_form}
HANDLE = "handle"
NOTHING_FOUND = (
    "The model's code defines neither functions such as model_fn and predict_fn, nor handle(data, context), nor a "
    "class with initialize(context) and handle(data, context)."
)


def load_user_code(script: Path, model_root: Path, terms: LoadTerms) -> Handler:
    """Import a script and return the handler that it is written as: by functions, or as a service.

    Raises `HandlerError`.
    """
    module = import_script(script, model_root)
    if any(callable(getattr(module, name, None)) for name in FUNCTIONS):
        return FunctionHandler.load(module, model_root, terms)
    return ServiceHandler.load(_target(module, None), model_root, terms)


def load_service(entry: str, model_root: Path, terms: LoadTerms) -> Handler:
    """Return the handler at an entry point: `pkg.module`, `module:function`, `file.py:Class` or `/path/file.py:…`.

    Raises `HandlerError`.
    """
    place, _, name = entry.partition(":")
    # Without `.py` it is a module; with it, a file beside the model, in its code folder, or anywhere.
    script = next((file for file in _scripts(place, model_root) if file.is_file()), None)
    module = import_module(place, model_root) if script is None else import_script(script, model_root)
    if not name and any(callable(getattr(module, function, None)) for function in FUNCTIONS):
        return FunctionHandler.load(module, model_root, terms)
    return ServiceHandler.load(_target(module, name or None), model_root, terms)


def _scripts(place: str, model_root: Path) -> list[Path]:
    named = place if place.endswith(".py") else f"{place}.py"
    return [Path(named)] if named.startswith("/") else [model_root / named, model_root / "code" / named]


def _target(module: ModuleType, name: str | None) -> Any:
    """Return the function or class that handles. Raises `HandlerError`."""
    if name is not None and hasattr(module, name):
        return getattr(module, name)
    # `module:handle` is also how multi-model-server was told of a module that holds nothing but a class.
    if name not in (None, HANDLE):
        raise HandlerError(f"{module.__name__} has no {name}, which the entry point names.")
    if callable(getattr(module, HANDLE, None)):
        return module.handle
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if callable(getattr(member, HANDLE, None)) and member.__module__ == module.__name__
    ]
    # One that another is derived from is there for the other's sake.
    classes = [kind for kind in classes if not any(kind in other.__mro__[1:] for other in classes)]
    if len(classes) == 1:
        return classes[0]
    if classes:
        names = ", ".join(sorted(member.__name__ for member in classes))
        raise HandlerError(f"Several classes could handle requests ({names}): name one in SAGEMAKER_HANDLER.")
    raise HandlerError(NOTHING_FOUND)


class ServiceHandler:
    """A service behind the handler protocol."""

    def __init__(self, handle: Callable[[Any, Context], Any], model_dir: Path, terms: LoadTerms) -> None:
        self.max_batch_rows = terms.config.batching.max_rows or 1
        self._handle: Callable[[Any, Context], Any] | None = handle
        self._model_dir = model_dir
        self._terms = terms
        self._manifest = read_manifest(model_dir)
        self._loop = EventLoop()

    @classmethod
    def load(cls, target: Any, model_dir: Path, terms: LoadTerms) -> "ServiceHandler":
        """Load a service: `initialize` of an object, or one call of a function with no data. Raises `HandlerError`.

        multi-model-server logged what `initialize` raised and called the model loaded; here the load fails.
        """
        with user_code("Making the model's service"):
            instance = target() if inspect.isclass(target) else target
        handle = getattr(instance, HANDLE, instance)
        if not callable(handle):
            raise HandlerError(NOTHING_FOUND)
        handler = cls(handle, model_dir, terms)
        handler._loop.run(handler._initialize(getattr(instance, "initialize", None)))
        return handler

    async def _initialize(self, initialize: Callable[[Context], Any] | None) -> None:
        assert self._handle is not None
        context = self._context()
        with user_code("The model's initialize"):
            await self._loop.awaited(self._handle(None, context) if initialize is None else initialize(context))

    def _context(self, requests: Sequence[InferenceRequest] = ()) -> Context:
        return Context(
            self._model_dir,
            requests,
            gpu_id=self._terms.gpu_id,
            manifest=self._manifest,
            batch_size=self.max_batch_rows,
        )

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests with one call; those whose body cannot be read are told, and not part of it."""
        rows: list[dict[str, Any] | Exception] = [_row(request) for request in requests]
        readable = [(request, row) for request, row in zip(requests, rows, strict=True) if isinstance(row, dict)]
        answers = iter(self._loop.run(self._answer_together(readable)))
        return [next(answers) if isinstance(row, dict) else row for row in rows]

    async def _answer_together(
        self, given: Sequence[tuple[InferenceRequest, dict[str, Any]]]
    ) -> list[InferenceResponse | Exception]:
        """Return an answer or error for each request. Requests that fail together are tried one by one."""
        if not given:
            return []
        context = self._context([request for request, _ in given])
        try:
            with timed("predict"):
                results = await self._call([row for _, row in given], context)
        except MemoryError as error:
            return [error] * len(given)
        except MooringError as error:
            if len(given) == 1:
                return [error]
            return [answer for each in given for answer in await self._answer_together([each])]
        return [
            await self._answer(result, request, context, place)
            for place, (result, (request, _)) in enumerate(zip(results, given, strict=True))
        ]

    async def _call(self, data: list[Any], context: Context) -> Sequence[Any]:
        assert self._handle is not None
        with user_code("The model's handle"):
            results = await self._loop.awaited(self._handle(data, context))
        if not isinstance(results, (list, tuple)) or len(results) != len(data):
            what = f"a list of {len(results)}" if isinstance(results, (list, tuple)) else type(results).__name__
            raise HandlerError(
                f"The model's handle was given {len(data)} requests and returned {what}; it has to return a list with "
                "one answer for each."
            )
        return results

    async def _answer(
        self, result: Any, request: InferenceRequest, context: Context, place: int
    ) -> InferenceResponse | Exception:
        """Return one element of what `handle` returned as an answer. multi-model-server indents JSON, we do not."""
        try:
            body, content_type = written(result, request.accept, _default_type(result))
            if is_stream(body):
                chunks = await open_chunks(body, self._loop)
                return context.response(b"", content_type, place, chunks)
            return context.response(body, content_type, place)
        except (MooringError, MemoryError) as error:
            return error

    def close(self) -> None:
        """Drop the service, and end what still runs for it; its process ends next."""
        self._handle = None
        self._loop.close()


def _row(request: InferenceRequest) -> dict[str, Any] | Exception:
    """Return a request as a service gets it: the fields of a form by name, or the body under `body`."""
    media_type = parse(request.content_type)
    decoder = FORMS.get(media_type.name)
    if decoder is None:
        return {"body": request.body}
    try:
        return dict(decoder(request.body, media_type))
    except MooringError as error:
        return error


def _default_type(result: Any) -> str:
    """Return what an answer is that neither the service nor the client says anything of."""
    if isinstance(result, (bytes, bytearray, memoryview)):
        return "application/octet-stream"
    return "text/plain" if isinstance(result, str) else JSON
