"""The handler for services as multi-model-server has them: `handle(data, context)`, or a class with `initialize`.

`data` is a list with one mapping per request: its body, or the fields of its form; `handle` returns a list as long.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mooring.contract.errors import MooringError

from .answers import to_response
from .context import Context
from .errors import HandlerError
from .functions import FUNCTIONS, FunctionHandler
from .media_types import FORM, JSON, MULTIPART, parse
from .multipart import decode_form, decode_multipart
from .protocol import Handler, InferenceRequest, InferenceResponse
from .service_entry import read_manifest
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
        self._gpu_id = terms.gpu_id
        self._manifest = read_manifest(model_dir)

    @classmethod
    def load(cls, target: Any, model_dir: Path, terms: LoadTerms) -> "ServiceHandler":
        """Load a service: `initialize` of an object, or one call of a function with no data. Raises `HandlerError`.

        multi-model-server logged what `initialize` raised and called the model loaded; here the load fails.
        """
        with user_code("Making the model's service"):
            instance = target() if inspect.isclass(target) else target
        handle = getattr(instance, HANDLE, None) or instance
        handler = cls(handle, model_dir, terms)
        context = handler._context()
        with user_code("The model's initialize"):
            if hasattr(instance, "initialize"):
                instance.initialize(context)
            else:
                handle(None, context)
        return handler

    def _context(self, requests: Sequence[InferenceRequest] = ()) -> Context:
        return Context(
            self._model_dir,
            requests,
            gpu_id=self._gpu_id,
            manifest=self._manifest,
            batch_size=self.max_batch_rows,
        )

    def respond(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Answer requests with one call; those whose body cannot be read are told, and not part of it."""
        rows: list[dict[str, Any] | Exception] = [_row(request) for request in requests]
        readable = [index for index, row in enumerate(rows) if not isinstance(row, Exception)]
        answers: list[InferenceResponse | Exception] = [
            row if isinstance(row, Exception) else HandlerError("unanswered") for row in rows
        ]
        if not readable:
            return answers
        context = self._context([requests[index] for index in readable])
        try:
            results = self._call([rows[index] for index in readable], context)
            for place, index in enumerate(readable):
                answers[index] = _answer(results[place], requests[index], context, place)
        except (MooringError, MemoryError) as error:
            for index in readable:
                answers[index] = error
        return answers

    def _call(self, data: list[Any], context: Context) -> Sequence[Any]:
        assert self._handle is not None
        with user_code("The model's handle"):
            results = self._handle(data, context)
        if not isinstance(results, (list, tuple)) or len(results) != len(data):
            what = f"a list of {len(results)}" if isinstance(results, (list, tuple)) else type(results).__name__
            raise HandlerError(
                f"The model's handle was given {len(data)} requests and returned {what}; it has to return a list with "
                "one answer for each."
            )
        return results

    def close(self) -> None:
        """Drop the service; its process ends next."""
        self._handle = None


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


def _answer(result: Any, request: InferenceRequest, context: Context, place: int) -> InferenceResponse:
    """Return one element of what `handle` returned as an answer. multi-model-server indents JSON, we do not."""
    if isinstance(result, (dict, list)):
        return context.response(json.dumps(result, default=_plain).encode(), JSON, place)
    return to_response(result, _content_type(result, request), context, place)


def _content_type(result: Any, request: InferenceRequest) -> str:
    """Return what an answer is that says nothing of itself: what the client asked for, if it asked for one thing."""
    accept = request.accept
    if accept and "," not in accept and "*" not in accept:
        return accept
    return "text/plain" if isinstance(result, str) else "application/octet-stream" if _is_bytes(result) else JSON


def _is_bytes(result: Any) -> bool:
    return isinstance(result, (bytes, bytearray))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
