"""The ordinary lane: everything that is not hot, as a FastAPI application.

It answers the hot paths too, for requests that the express lane leaves to it, through the same door and with the same
bytes.
"""

import asyncio
import contextlib
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.params import Depends as Dependency
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from mooring import __version__
from mooring.contract.errors import MooringError

from . import console, inference_protocol, metrics, openapi
from .admission import Admission
from .awaited import invoke, read_small, refusal, to_starlette
from .catalog import ModelCatalog
from .door import Door
from .errors import RequestError
from .http_errors import error_body
from .model_paths import ModelPaths
from .residency import ModelRecord
from .resident import describe_resident
from .upkeep import Upkeep

PAGE_SIZE = 100
MOST_TOKEN_DIGITS = 18
KINDS = {404: "ResourceNotFoundException", 405: "MethodNotAllowedException", 422: "BadRequestException"}
# The platform multiplies payload and concurrency, and allows this much.
MOST_BATCH_MB = 100


def create_app(
    door: Door,
    catalog: ModelCatalog,
    paths: ModelPaths,
    upkeep: Upkeep,
    admission: Admission,
    audience: console.Audience,
) -> FastAPI:
    """Return the application for a server's door, its models, where they may come from, and who may do and see what."""
    admin = Depends(admission.check)
    app = FastAPI(
        title="Mooring",
        version=__version__,
        description="A multi-model server for SageMaker and beyond.",
        responses=openapi.ERRORS,
    )
    _add_errors(app, door)
    _add_platform(app, door, catalog)
    _add_models(app, door, catalog, paths, admin)
    _add_mms(app, door, catalog, admin)
    inference_protocol.add_routes(app, door, catalog, paths, admin)
    console.add_routes(app, door, catalog, upkeep, audience)
    told = metrics.Metrics(door, catalog, upkeep)

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        return Response(told.render(), media_type=metrics.CONTENT_TYPE)

    return app


def _add_errors(app: FastAPI, door: Door) -> None:
    @app.exception_handler(MooringError)
    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, MooringError)
        return refusal(door, request, error)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # for the log alone: nobody is there to read it

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}. GET /docs lists what this server answers."
        kind = KINDS.get(error.status_code, "BadRequestException")
        return Response(
            error_body(error.status_code, kind, message), error.status_code, error.headers, "application/json"
        )


def _add_platform(app: FastAPI, door: Door, catalog: ModelCatalog) -> None:
    @app.get("/ping", summary="Whether the server can answer: 200, or 503 while its model is loading")
    async def ping() -> Response:
        return to_starlette(*door.ping_answer())

    @app.post("/invocations", summary="Invoke the one model of a single-model server", openapi_extra=openapi.ANY_BODY)
    async def invocations(request: Request) -> Response:
        if door.single_model is None:
            raise RequestError(
                "This server holds many models: send the request to /models/{name}/invoke. "
                "/invocations answers where one model is served."
            )
        return await invoke(door, door.single_model, request)

    @app.get("/execution-parameters", summary="How a batch job should send its records")
    async def execution_parameters() -> dict[str, Any]:
        if door.single_model is None:
            raise HTTPException(404, "batch jobs ask this of servers with a single model")
        workers = catalog.describe(door.single_model).workers
        concurrency = door.limits.max_concurrent_transforms or workers
        payload = max(1, min(door.limits.max_body_bytes >> 20, MOST_BATCH_MB // concurrency))
        return {"MaxConcurrentTransforms": concurrency, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": payload}


def _add_models(app: FastAPI, door: Door, catalog: ModelCatalog, paths: ModelPaths, admin: Dependency) -> None:
    @app.post("/models/{name}/invoke", summary="Invoke a model", openapi_extra=openapi.ANY_BODY)
    async def invoke_model(name: str, request: Request) -> Response:
        return await invoke(door, name, request)

    @app.post(
        "/models", summary='Load a model: {"model_name": …, "url": …}', dependencies=[admin], openapi_extra=openapi.LOAD
    )
    async def load(request: Request) -> Response:
        fields = await _load_request(request, door)
        name, url = fields["model_name"], fields["url"]
        workers, pinned = _workers(fields.get("initial_workers")), str(fields.get("pinned", "")).lower() == "true"
        find = partial(paths.folder, name, url)
        if str(fields.get("synchronous", "true")).lower() == "false":
            folder = await asyncio.to_thread(find)  # a url that leads nowhere is told at once
            loading = catalog.load(name, lambda: folder, url, workers=workers, pinned=pinned)
            catalog.spawn(_in_background(loading))
            return _json({"status": "Workers scaling in progress..."}, 202)
        await catalog.load(name, find, url, workers=workers, pinned=pinned)
        return _json({"status": "Workers scaled"})

    @app.get("/models", summary="List the loaded models in the order of loading")
    async def list_models(
        next_page_token: str = "", limit: Annotated[int, Query(ge=1, le=PAGE_SIZE)] = PAGE_SIZE
    ) -> dict[str, Any]:
        return _page([*catalog.loaded()], next_page_token, limit)

    @app.get("/models/{name}", summary="Describe a model: its state, what it holds, where it runs")
    async def describe(name: str) -> dict[str, Any]:
        return describe_resident(catalog.describe(name))

    @app.delete("/models/{name}", summary="Unload a model; answers when its memory is back", dependencies=[admin])
    async def unload(name: str) -> dict[str, Any]:
        await catalog.unload(name)
        return {"status": f'Model "{name}" unregistered'}


def _add_mms(app: FastAPI, door: Door, catalog: ModelCatalog, admin: Dependency) -> None:
    """What multi-model-server answers beside the platform's contract."""

    @app.post(
        "/predictions/{name}",
        summary="Invoke a model, as multi-model-server spells it",
        openapi_extra=openapi.ANY_BODY,
    )
    async def predictions(name: str, request: Request) -> Response:
        return await invoke(door, name, request)

    @app.put("/models/{name}", summary="Give a model more or fewer workers, or pin it", dependencies=[admin])
    async def scale(
        name: str,
        min_worker: Annotated[int | None, Query(ge=1)] = None,
        pinned: bool | None = None,
        synchronous: bool = True,
    ) -> Response:
        catalog.describe(name)
        if pinned is not None:
            catalog.pin(name, pinned=pinned)
        if min_worker is not None and not synchronous:
            catalog.spawn(_in_background(catalog.scale(name, min_worker)))
            return _json({"status": "Processing worker updates..."}, 202)
        if min_worker is not None:
            await catalog.scale(name, min_worker)
        return _json({"status": "Workers scaled"})

    @app.options("/", include_in_schema=False)
    @app.options("/predictions/{name}", include_in_schema=False)
    async def options(name: str = "") -> dict[str, Any]:
        if name:
            catalog.describe(name)
        return app.openapi()


async def _in_background(work: Any) -> None:
    """Let work go on whose outcome is read from the model's state."""
    with contextlib.suppress(MooringError):  # the model's record says so, and the log
        await work


async def _load_request(request: Request, door: Door) -> dict[str, Any]:
    """Return the fields of a load, from a JSON body as the platform sends it or from the query as MMS takes it."""
    body = await read_small(request, door)
    fields: dict[str, Any] = dict(request.query_params)
    if body:
        try:
            fields |= orjson.loads(body)
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise RequestError(f'The body is not a JSON object like {{"model_name": …, "url": …}}: {error}') from error
    for field in ("model_name", "url"):
        if not isinstance(fields.get(field), str) or not fields[field]:
            raise RequestError(f"Parameter {field} is required.")
    _check_name(fields["model_name"])
    return fields


def _check_name(name: str) -> None:
    """Raise `RequestError` for a name that no path of ours would lead to: it could not be invoked, nor unloaded."""
    if "/" in name or name in (".", ".."):
        raise RequestError(f'Parameter model_name is "{name}"; expected a name without "/", and neither "." nor "..".')


def _workers(given: Any) -> int | None:
    if given is None or given == "":
        return None
    if not str(given).isdecimal():
        raise RequestError(f"Parameter initial_workers is {given!r}; expected a whole number.")
    return int(given) or None


def _page(records: list[ModelRecord], token: str, limit: int) -> dict[str, Any]:
    if token and not (token.isdecimal() and len(token) <= MOST_TOKEN_DIGITS):
        raise RequestError(f'next_page_token is "{token}"; expected the token of an earlier answer.')
    start = int(token or 0)
    page: dict[str, Any] = {
        "models": [{"modelName": record.name, "modelUrl": record.url} for record in records[start : start + limit]]
    }
    if start + limit < len(records):
        page["nextPageToken"] = str(start + limit)
    return page


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
