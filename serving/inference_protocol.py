"""The Open Inference Protocol, version 2: health, metadata, infer with JSON and binary tensors, and the repository.

Paths and fields are those of KServe's and Triton's specifications, so that their clients work against this server.
A model has one version, called 1.
"""

from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.params import Depends as Dependency

from mooring import __version__
from mooring.handler.media_types import OPEN_INFERENCE

from . import openapi
from .awaited import invoke, read_small
from .catalog import ModelCatalog
from .door import Door
from .errors import ModelNotFoundError, RequestError
from .lifecycle import State
from .model_paths import ModelPaths

VERSION = "1"
EXTENSIONS = ["model_repository", "binary_tensor_data"]
HEADER_LENGTH = "inference-header-content-length"
# The protocol knows fewer states than we do.
STATES = {
    State.READY: "READY",
    State.QUEUED: "LOADING",
    State.LOADING: "LOADING",
    State.WARMING: "LOADING",
    State.DRAINING: "UNLOADING",
    State.FAILED: "UNAVAILABLE",
    State.ABSENT: "UNAVAILABLE",
}


def add_routes(app: FastAPI, door: Door, catalog: ModelCatalog, paths: ModelPaths, admin: Dependency) -> None:
    """Add the protocol's paths to the application."""
    _add_health(app, door, catalog)
    _add_models(app, door, catalog)
    _add_repository(app, door, catalog, paths, admin)


def _add_health(app: FastAPI, door: Door, catalog: ModelCatalog) -> None:
    @app.get("/v2", summary="Server metadata")
    async def server_metadata() -> dict[str, Any]:
        return {"name": "mooring", "version": __version__, "extensions": EXTENSIONS}

    @app.get("/v2/health/live", summary="Whether the server runs")
    async def live() -> dict[str, Any]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Whether the server can answer")
    async def ready() -> Response:
        return _json({"ready": door.is_ready}, 200 if door.is_ready else 503)

    @app.get("/v2/models/{name}/ready", summary="Whether a model can answer")
    @app.get("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str = VERSION) -> Response:
        _check_version(name, version)
        is_ready = catalog.state(name) is State.READY
        return _json({"name": name, "ready": is_ready}, 200 if is_ready else 503)


def _add_models(app: FastAPI, door: Door, catalog: ModelCatalog) -> None:
    @app.get("/v2/models/{name}", summary="Model metadata: its inputs and outputs")
    @app.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
    async def model_metadata(name: str, version: str = VERSION) -> dict[str, Any]:
        _check_version(name, version)
        resident = catalog.describe(name)
        known = {"platform": resident.record.kind, "inputs": [], "outputs": []}
        told = {key: resident.metadata.get(key, default) for key, default in known.items()}
        return {"name": name, "versions": [VERSION], **told}

    @app.post("/v2/models/{name}/infer", summary="Invoke a model with named tensors", openapi_extra=openapi.TENSORS)
    @app.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(name: str, request: Request, version: str = VERSION) -> Response:
        _check_version(name, version)
        length = request.headers.get(HEADER_LENGTH, "")
        if length and not length.isdecimal():
            raise RequestError(f'{HEADER_LENGTH} is "{length}"; expected the length of the JSON in bytes.')
        content_type = f"{OPEN_INFERENCE}; header-length={length}" if length else OPEN_INFERENCE
        kept = [header for header in request.headers.raw if header[0] not in (b"content-type", b"accept")]
        labelled = [*kept, (b"content-type", content_type.encode()), (b"accept", OPEN_INFERENCE.encode())]
        ours = [(b"x-mooring-model-name", name.encode("latin-1", "replace"))]
        return await invoke(door, name, request, door.request_lines(labelled, ours))


def _add_repository(app: FastAPI, door: Door, catalog: ModelCatalog, paths: ModelPaths, admin: Dependency) -> None:
    @app.post(
        "/v2/repository/index",
        summary="The models there are, and what state they are in",
        openapi_extra=openapi.INDEX,
    )
    async def index(request: Request) -> Response:
        wanted = await _object(request, door)
        rows = [
            {
                "name": record.name,
                "version": VERSION,
                "state": STATES[record.state],
                "reason": record.reason,
                "bytes": record.bytes,
                "hits": record.hits,
                "hosts": [link.pid for link in resident.links],
            }
            for resident in catalog.residents()
            for record in [resident.record]
            if record.state is State.READY or not wanted.get("ready")
        ]
        known = {row["name"] for row in rows}
        if not wanted.get("ready"):
            rows += [
                {"name": name, "version": VERSION, "state": STATES[State.ABSENT], "reason": "not loaded"}
                for name in paths.repository.names()
                if name not in known
            ]
        return _json(rows)

    @app.post("/v2/repository/models/{name}/load", summary="Load a model, or load it again", dependencies=[admin])
    async def load(name: str, request: Request) -> Response:
        await read_small(request, door)
        path = paths.repository.find(name)
        if catalog.holds(name):
            await catalog.unload(name)
        await catalog.load(name, partial(paths.unpacked, name, path), str(path))
        return _json({})

    @app.post("/v2/repository/models/{name}/unload", summary="Unload a model", dependencies=[admin])
    async def unload(name: str, request: Request) -> Response:
        await read_small(request, door)
        await catalog.unload(name)
        return _json({})


def _check_version(name: str, version: str) -> None:
    if version != VERSION:
        raise ModelNotFoundError(f"{name}, version {version}")


async def _object(request: Request, door: Door) -> dict[str, Any]:
    body = await read_small(request, door)
    try:
        given = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise RequestError("The body is no JSON object.")
    return given


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
