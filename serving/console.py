"""The console: a page at /console that shows what the server does, and the numbers behind it at /console/data.

The page changes things by the routes that every client has, so it gives nobody a power they lack. It is read from a
snapshot a second; rates and percentiles are differences that the page computes, so that no request pays for them.
"""

import hashlib
import re
import time
from base64 import b64encode
from dataclasses import dataclass
from importlib import resources
from typing import Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from mooring import __version__

from .admission import is_forwarded, is_loopback
from .catalog import ModelCatalog
from .door import Door
from .errors import ConsoleRefusedError
from .histogram import BOUNDS
from .lifecycle import State
from .overview import Overview
from .resident import Resident, describe_resident
from .settings import ConsoleAccess
from .upkeep import Upkeep

# A snapshot stays small however many models there are: the busiest are listed, the others found by name.
MOST_MODELS = 100
# An error may quote a whole traceback; its beginning says what happened.
MOST_REASON_CHARACTERS = 1000
PAGE = "console.html"
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


@dataclass(frozen=True)
class Audience:
    """Whom the console answers: clients on this machine, unless it is open to all."""

    access: ConsoleAccess
    bound_host: str

    def check(self, client: str, host: str) -> None:
        """Let a client's address and Host header pass. Raises `ConsoleRefusedError`.

        The header is checked because a page elsewhere may have its own name resolve to this machine (DNS rebinding):
        its requests then come from the loopback address and count as same-origin, but carry that name.
        """
        if self.access is ConsoleAccess.ANYWHERE:
            return
        if not is_loopback(client):
            raise ConsoleRefusedError(f"it answers clients on the server's own machine, and you are {client or '?'}")
        name = _name(host)
        if name not in ("localhost", self.bound_host.lower()) and not is_loopback(name):
            raise ConsoleRefusedError(f"'{name}' is not a name of this machine; open it as localhost")


def add_routes(app: FastAPI, door: Door, catalog: ModelCatalog, upkeep: Upkeep, audience: Audience) -> None:
    """Answer /console and /console/data; neither exists where the console is off."""
    if audience.access is ConsoleAccess.OFF:
        return
    page = resources.files(__package__).joinpath(PAGE).read_bytes()
    page_headers = HEADERS | {"Content-Security-Policy": content_policy(page)}
    started = time.monotonic()
    overview = Overview(catalog.table)

    def check(request: Request) -> None:
        client = request.client.host if request.client else ""
        audience.check("behind a proxy" if is_forwarded(request) else client, request.headers.get("host", ""))

    router = APIRouter(prefix="/console", dependencies=[Depends(check)])

    @router.get("", summary="A page that shows what this server does")
    async def get_page() -> Response:
        return Response(page, headers=page_headers, media_type="text/html")

    @router.get("/data", summary="What the console shows: the server, and its busiest models")
    async def get_snapshot(find: str = "", state: State | None = None) -> Response:
        server = {
            "version": __version__,
            "health": door.health().value,
            "uptimeSeconds": time.monotonic() - started,
            "singleModel": door.single_model,
        }
        return Response(
            orjson.dumps(server | snapshot(catalog, overview, upkeep, find, state)),
            headers=HEADERS,
            media_type="application/json",
        )

    app.include_router(router)


def content_policy(page: bytes) -> str:
    """Return a policy that lets a page run the script and style that are in it, ask this server, and nothing else."""
    script, style = (_hash_within(tag, page) for tag in (b"script", b"style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def snapshot(
    catalog: ModelCatalog, overview: Overview, upkeep: Upkeep, find: str = "", state: State | None = None
) -> dict[str, Any]:
    """Return what is known of all models together, and of the busiest whose name holds `find` and that are in `state`.

    Counts are since the start and never fall: of two snapshots the difference is what happened between them.
    """
    table = catalog.table
    in_flight = overview.look()
    found, busiest = overview.busiest(MOST_MODELS, find, state)
    return {
        "memory": {"budget": table.budget, "models": table.used, "processes": upkeep.proportional_bytes},
        "states": {state.value: len(names) for state, names in table.standing.items() if names},
        "inFlight": in_flight,
        "bounds": BOUNDS,
        "latency": table.answered,
        "found": found,
        "models": [_row(catalog.describe(name)) for name in busiest],
    }


def _row(resident: Resident) -> dict[str, Any]:
    described = describe_resident(resident)
    return (
        described
        | {
            "number": resident.record.number,  # tells a model from one of its name that was here before
            "reason": described["reason"][:MOST_REASON_CHARACTERS],
            "latency": resident.record.latency.counts,
        }
    )


def _name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _hash_within(tag: bytes, page: bytes) -> str:
    content = re.search(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
    assert content is not None, tag
    return f"'sha256-{b64encode(hashlib.sha256(content[1]).digest()).decode()}'"
