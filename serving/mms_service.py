"""Our handlers as a service of multi-model-server: what its worker calls once to load a model, then for each request.

Requests and errors become here what the front door of our own engine makes of them, so that both engines answer alike.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mooring.artifact.publish import publish_file
from mooring.artifact.requirements import site_folder
from mooring.compat.finder import Room, install
from mooring.contract.environment import process_variables
from mooring.handler.load import load_handler
from mooring.handler.media_types import parse
from mooring.handler.protocol import Handler, InferenceRequest, InferenceResponse
from mooring.handler.resolve import choose_handler
from mooring.handler.terms import LoadTerms
from mooring.handler.warm_up import warm_up

from . import frames
from .batcher import slices
from .door import FORWARDED, OWN_PREFIX
from .errors import RemoteError
from .host_wire import NOT_OF_WHOLE, checked_status, error_frame, response_lines
from .http_errors import to_response
from .mms_forms import body_of

logger = logging.getLogger(__name__)

# Set by mms_engine.py: a file that the first load leaves, empty if it went well, else with the reason.
FIRST_LOAD_VARIABLE = "MOORING_MMS_FIRST_LOAD"
ACCEPT_VARIABLE = "MOORING_DEFAULT_ACCEPT"


class WorkerContext(Protocol):
    """What is used of the context that a worker of multi-model-server hands in."""

    system_properties: Mapping[str, Any]

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        """Return the headers of one request, and one mapping per part of its body."""

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of one answer."""

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Add a header to one answer."""


class ModelService:
    """The one model of a worker."""

    def __init__(self) -> None:
        self._handler: Handler
        self._default_accept = "application/json"

    def handle(self, data: Sequence[Mapping[str, Any]] | None, context: WorkerContext) -> list[bytes]:
        """Load the model if `data` is None; else return one body per request, its status and headers in `context`.

        Loading raises whatever the model does; the worker then ends, and multi-model-server answers 500, or 507 for
        `MemoryError`. What goes wrong with a request becomes that request's answer.
        """
        if data is None:
            self._load(context)
            return []
        requests = [self._request(element, context, index) for index, element in enumerate(data)]
        answers = self._answers(requests)
        return [_write(answer, context, index) for index, answer in enumerate(answers)]

    # --- loading ----------------------------------------------------------------------------------------------------

    def _load(self, context: WorkerContext) -> None:
        variables = process_variables()
        self._default_accept = variables.get(ACCEPT_VARIABLE) or self._default_accept
        try:
            self._handler = _loaded(context, variables)
        except Exception as error:
            reason = str(error) or type(error).__name__
            logger.warning("The model did not load: %s", reason)  # the worker logs where
            _tell_of_first_load(variables, reason)
            raise
        _tell_of_first_load(variables, "")

    # --- answering --------------------------------------------------------------------------------------------------

    def _request(self, element: Mapping[str, Any], context: WorkerContext, index: int) -> InferenceRequest:
        given = context.get_all_request_header(index)
        headers = self._headers(given)
        content_type = headers.get("content-type", "")
        body = body_of(element, given, parse(content_type))
        return InferenceRequest(body, content_type, headers["accept"], headers)

    def _headers(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers that reach a handler behind our own front door too; see `Door.request_lines`."""
        headers = {}
        for name, value in given.items():
            key = name.lower()
            # Beside headers there is a mapping per part of the body, under that part's name.
            if isinstance(value, str) and _reaches_handlers(key.encode()):
                headers[key] = value
        if headers.get("accept", "*/*") in ("", "*/*"):
            headers["accept"] = self._default_accept
        return headers

    def _answers(self, requests: list[InferenceRequest]) -> list[InferenceResponse | Exception]:
        """Ask the handler, for no more at once than it finds safe."""
        answers: list[InferenceResponse | Exception] = []
        for batch in slices(requests, self._handler.max_batch_rows):
            try:
                answers += self._handler.respond(batch)
            except Exception as error:  # user code may raise anything; each request learns of it
                logger.exception("A handler raised instead of answering.")
                answers += [error] * len(batch)
        return answers


def _reaches_handlers(name: bytes) -> bool:
    return name in FORWARDED or (name.startswith(b"x-") and not name.startswith(OWN_PREFIX))


def _loaded(context: WorkerContext, variables: Mapping[str, str]) -> Handler:
    # The path goes by way of a link, see mms_config.py; handlers are told where the model really lies.
    folder = Path(os.path.realpath(context.system_properties["model_dir"]))
    # multi-model-server puts the model's folder before the standard library; nothing of it is imported from there.
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != str(folder)]
    choice = choose_handler(folder, variables)
    if choice.requirements is not None:
        sys.path.insert(0, str(site_folder(choice.requirements, variables)))
    install(Room.SERVING)
    # One thread, as multi-model-server's workers have by default: it starts one worker per core if asked to.
    threads = choice.config.threads or 1
    handler = load_handler(
        choice, LoadTerms(threads, context.system_properties.get("gpu_id"), variables, choice.config)
    )
    warm_up(handler, choice)
    return handler


def _tell_of_first_load(variables: Mapping[str, str], reason: str) -> None:
    named = variables.get(FIRST_LOAD_VARIABLE)
    if named and not Path(named).exists():
        with publish_file(Path(named)) as beside:
            beside.write_text(reason, encoding="utf-8")


def _write(answer: InferenceResponse | Exception, context: WorkerContext, index: int) -> bytes:
    """Set status and headers of an answer or error, and return its body; a stream is joined: it cannot be sent so."""
    if not isinstance(answer, Exception):
        try:
            body = answer.body if answer.chunks is None else b"".join(answer.chunks)
            status, lines = checked_status(answer), response_lines(answer, NOT_OF_WHOLE)
            _check_ascii(answer.content_type)
        except Exception as error:  # a stream is user code, too
            logger.exception("An answer cannot be sent.")
            answer = error
    if isinstance(answer, Exception):
        status, lines, body = to_response(_as_reported(answer))
    context.set_response_status(status, "", index)
    for name, value in frames.decode_lines(lines):
        context.set_response_header(index, name, value)
    return bytes(body)


def _as_reported(error: Exception) -> RemoteError:
    """Return an error as our front door learns of it from a host, so that it says as much and no more to a client."""
    ((*_, body),) = frames.FrameReader().feed(error_frame(0, error))
    facts = json.loads(body)
    return RemoteError(facts["names"], facts["message"], facts["status"])


def _check_ascii(content_type: str) -> None:
    """Raise `ValueError` for what the worker would count in characters but send in bytes, and so break its wire."""
    if not content_type.isascii():
        raise ValueError(f"The handler set the content type {content_type!r}, which multi-model-server cannot send.")


handle: Callable[[Sequence[Mapping[str, Any]] | None, WorkerContext], list[bytes]] = ModelService().handle
