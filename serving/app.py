"""The ordinary lane: everything that is not hot, as a FastAPI application.

It answers the hot paths too, for requests that the express lane leaves to it, through the same door and with the same
bytes.
"""

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response
from starlette.exceptions import HTTPException

from mooring import __version__
from mooring.contract.errors import MooringError

from . import frames
from .catalog import ModelCatalog
from .door import Door
from .errors import BodyTooLargeError, RequestError
from .http_errors import error_body, to_response
from .invocation import Invocation
from .model_paths import ModelPaths
from .residency import ModelRecord

PAGE_SIZE = 100
KINDS = {404: "ResourceNotFoundException", 405: "MethodNotAllowedException"}


class AwaitedInvocation(Invocation):
    """An invocation whose answer a coroutine waits for."""

    __slots__ = ("response",)

    def __init__(self, name: str, meta: bytes, body: bytes) -> None:
        super().__init__(name, meta, body)
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    @property
    def is_abandoned(self) -> bool:
        """Whether the coroutine was cancelled because its client left."""
        return self.response.cancelled()

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Hand the answer over, unless nobody waits any more."""
        if not self.response.done():
            self.response.set_result(_response(status, lines, body))

    def fail(self, error: MooringError) -> None:
        """Hand the error over as the table translates it."""
        self.answer(*to_response(error))


def create_app(door: Door, catalog: ModelCatalog, paths: ModelPaths) -> FastAPI:
    """Return the application for a server's door, its models, and the rule of where models may come from."""
    app = FastAPI(title="Mooring", version=__version__, description="A multi-model server for SageMaker and beyond.")

    @app.exception_handler(MooringError)
    async def on_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, MooringError)
        return _response(*to_response(error))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}. GET /docs lists what this server answers."
        kind = KINDS.get(error.status_code, "BadRequestException")
        return Response(
            error_body(error.status_code, kind, message), error.status_code, error.headers, "application/json"
        )

    @app.get("/ping", summary="Whether the server can answer: 200, or 503 while its model is loading")
    async def ping() -> Response:
        return _response(*door.ping_answer())

    @app.post("/invocations", summary="Invoke the one model of a single-model server")
    async def invocations(request: Request) -> Response:
        if door.single_model is None:
            raise RequestError(
                "This server holds many models: send the request to /models/{name}/invoke. "
                "/invocations answers where one model is served."
            )
        return await _invoke(door, door.single_model, request)

    @app.post("/models/{name}/invoke", summary="Invoke a model")
    async def invoke(name: str, request: Request) -> Response:
        return await _invoke(door, name, request)

    @app.post("/models", summary='Load a model: {"model_name": …, "url": …}')
    async def load(request: Request) -> dict[str, Any]:
        name, url = await _load_request(request, door)
        path = await paths.folder(name, url)
        await catalog.load(name, path, url)
        return {"status": "Workers scaled"}

    @app.get("/models", summary="List the loaded models in the order of loading")
    async def list_models(
        next_page_token: str = "", limit: Annotated[int, Query(ge=1, le=PAGE_SIZE)] = PAGE_SIZE
    ) -> dict[str, Any]:
        return _page(catalog.list(), next_page_token, limit)

    @app.get("/models/{name}", summary="Describe a model")
    async def describe(name: str) -> dict[str, Any]:
        return _describe(catalog.describe(name))

    @app.delete("/models/{name}", summary="Unload a model; answers when its memory is back")
    async def unload(name: str) -> dict[str, Any]:
        await catalog.unload(name)
        return {"status": f'Model "{name}" unregistered'}

    return app


async def _invoke(door: Door, name: str, request: Request) -> Response:
    body = await _read(request, door.limits.max_body_bytes)
    invocation = AwaitedInvocation(name, door.request_lines(request.headers.raw), body)
    door.invoke(invocation)
    return await invocation.response


async def _read(request: Request, limit: int) -> bytes:
    """Return the body. Raises `BodyTooLargeError` as soon as it is over the limit, however it is sent."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLargeError(limit)
    return bytes(body)


async def _load_request(request: Request, door: Door) -> tuple[str, str]:
    """Return name and url of a load, from a JSON body as the platform sends it or from the query as MMS takes it."""
    body = await _read(request, door.limits.max_body_bytes)
    fields: dict[str, Any] = dict(request.query_params)
    if body:
        try:
            fields |= orjson.loads(body)
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise RequestError(f'The body is not a JSON object like {{"model_name": …, "url": …}}: {error}') from error
    for field in ("model_name", "url"):
        if not isinstance(fields.get(field), str) or not fields[field]:
            raise RequestError(f"Parameter {field} is required.")
    return fields["model_name"], fields["url"]


def _page(records: list[ModelRecord], token: str, limit: int) -> dict[str, Any]:
    if token and not token.isdecimal():
        raise RequestError(f'next_page_token is "{token}"; expected the token of an earlier answer.')
    start = int(token or 0)
    page: dict[str, Any] = {
        "models": [{"modelName": record.name, "modelUrl": record.url} for record in records[start : start + limit]]
    }
    if start + limit < len(records):
        page["nextPageToken"] = str(start + limit)
    return page


def _describe(record: ModelRecord) -> dict[str, Any]:
    return {
        "modelName": record.name,
        "modelUrl": record.url,
        "status": record.state.value,
        "reason": record.reason,
        "backend": record.kind,
        "bytes": record.bytes,
        "hits": record.hits,
        "inFlight": record.leases,
    }


def _response(status: int, lines: bytes, body: bytes) -> Response:
    return Response(body, status, dict(frames.decode_lines(lines)))
