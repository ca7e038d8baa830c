"""A model behind the steps of the user's module, where it has them, and of a default handler, where it has not.

Unlike the toolkit's, it gives each call the live context, each request of a batch its own headers, and no client a
traceback.
"""

import copy
import importlib
import inspect
import logging
from collections.abc import Callable
from http import HTTPStatus
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mooring.contract.errors import MooringError

from . import content_types, encoder, environment, utils
from .default_inference_handler import DefaultInferenceHandler
from .errors import BaseInferenceToolkitError, UnreadableBodyError, UnsupportedFormatError

logger = logging.getLogger(__name__)

STEPS = ("model_fn", "input_fn", "predict_fn", "output_fn")
# Called around loading where the module or the default handler has them.
HOOKS = ("pre_model_fn", "model_warmup_fn")
# Errors that state a status.
STATED = (BaseInferenceToolkitError, UnreadableBodyError, UnsupportedFormatError)


class Transformer:
    """Loads a model once, and transforms requests into answers."""

    def __init__(self, default_inference_handler: DefaultInferenceHandler | None = None) -> None:
        self._default_inference_handler = default_inference_handler or DefaultInferenceHandler()
        self._environment = environment.Environment()
        self._functions: dict[str, Callable[..., Any]] = {}
        self._model: Any = None
        self._initialized = False

    def validate_and_initialize(self, model_dir: str | None = None, context: Any = None) -> None:
        """Find the functions and load the model, once. Raises `ValueError` for functions that exclude one another."""
        if self._initialized:
            return
        folder = model_dir or environment.model_dir
        self._functions = self._find_functions()
        if "pre_model_fn" in self._functions:
            self._run("pre_model_fn", context, folder)
        self._model = self._run("model_fn", context, folder)
        if "model_warmup_fn" in self._functions:
            self._run("model_warmup_fn", context, folder, self._model)
        self._initialized = True

    def transform(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """Return one body for each request; an error sets the status of its own answer only."""
        self.validate_and_initialize(context.system_properties.get("model_dir"), context)
        return [self._transform_one(row, context, index) for index, row in enumerate(data)]

    def _transform_one(self, row: dict[str, Any], context: Any, index: int) -> Any:
        own = _context_of(context, index)
        try:
            result = self._answer(row.get("body"), own)
        except (MooringError, MemoryError):
            raise
        except Exception as error:  # the user's code may raise anything
            logger.exception("Answering a request failed.")
            status, message = _as_answered(error)
            own.set_response_status(status, utils.remove_crlf(message))
            own.set_response_content_type(0, "text/plain")
            return message
        body, content_type = result if isinstance(result, tuple) else (result, _written(self._accept(own)))
        own.set_response_content_type(0, content_type)
        return body

    def _answer(self, body: Any, context: Any) -> Any:
        headers = context.request_processor[0].get_request_properties()
        content_type = utils.retrieve_content_type_header(headers) or content_types.JSON
        accept = self._accept(context)
        if isinstance(body, (bytes, bytearray)):
            body = _as_given_to_functions(bytes(body), content_type)
        if "transform_fn" in self._functions:
            return self._run("transform_fn", context, self._model, body, content_type, accept)
        data = self._run("input_fn", context, body, content_type)
        prediction = self._run("predict_fn", context, data, self._model)
        return self._run("output_fn", context, prediction, accept)

    def _accept(self, context: Any) -> str:
        headers = context.request_processor[0].get_request_properties()
        accept = headers.get("Accept") or headers.get("accept")
        return self._environment.default_accept if not accept or accept == content_types.ANY else accept

    def _find_functions(self) -> dict[str, Callable[..., Any]]:
        module = _user_module(self._environment.module_name.replace("/", "."))
        users = {name: getattr(module, name, None) for name in (*STEPS, *HOOKS, "transform_fn")}
        found = {name: function for name, function in users.items() if function is not None}
        if "transform_fn" in found and found.keys() & {"input_fn", "predict_fn", "output_fn"}:
            raise ValueError("transform_fn cannot be used together with input_fn, predict_fn or output_fn.")
        handler = self._default_inference_handler
        defaults = {name: getattr(handler, f"default_{name}", None) for name in (*STEPS, *HOOKS)}
        return {name: function for name, function in defaults.items() if function is not None} | found

    def _run(self, name: str, context: Any, *arguments: Any) -> Any:
        """Call a function, with the context if it takes one more argument. Raises `TypeError` for other numbers."""
        function = self._functions[name]
        parameters = inspect.signature(function).parameters
        if len(parameters) == len(arguments):
            return function(*arguments)
        if len(parameters) != len(arguments) + 1:
            raise TypeError(f"{name} takes {len(parameters)} arguments but {len(arguments)} were given.")
        last = list(parameters.values())[-1]
        if last.kind is inspect.Parameter.KEYWORD_ONLY:
            return function(*arguments, **{last.name: context})
        return function(*arguments, context)


def _user_module(name: str) -> ModuleType | None:
    """Return the module that SAGEMAKER_PROGRAM names, None where there is none: then every step has its default."""
    try:
        if find_spec(name) is None:
            return None
    except (ModuleNotFoundError, ValueError):  # its package is missing, or it has no spec
        return None
    return importlib.import_module(name)


def _as_answered(error: Exception) -> tuple[int, str]:
    """Return the status and message that an error states; those of any other stay in the log."""
    if isinstance(error, STATED):
        return error.status_code, str(error.message)
    if any(kind.__name__ == "PredictionException" for kind in type(error).__mro__):  # of mms or ts, ours or theirs
        return int(getattr(error, "error_code", 500)), str(getattr(error, "message", error))
    return HTTPStatus.INTERNAL_SERVER_ERROR.value, f"The model's code raised {type(error).__name__}."


def _written(accept: str) -> str:
    """Return the type that the defaults write for an Accept header."""
    return next((name for name in utils.parse_accept(accept) if name in encoder.SUPPORTED_CONTENT_TYPES), accept)


def _as_given_to_functions(body: bytes, content_type: str) -> str | bytes:
    name = content_type.partition(";")[0].strip().lower()
    if name not in content_types.UTF8_TYPES:
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(name, str(error)) from error


def _context_of(context: Any, index: int) -> Any:
    """Return a context in which a request of a batch is the first, as functions for single requests expect it."""
    if len(context.request_processor) == 1:
        return context
    own = copy.copy(context)
    own.request_processor = [context.request_processor[index]]
    return own
