"""How a front passes a request to the front door that holds the models, and what the front door makes of it.

A request for a model is a frame with `EXPRESS` for its number; its meta begins with a line that holds the model's name.
Any other is one with `ORDINARY`; its body begins with a line that holds its ASGI scope as JSON.
"""

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from . import request_ids
from .remembered import remembered

EXPRESS, ORDINARY = 0, 1
LINE_END = b"\r\n"
# Of a scope, what is text; the rest are bytes or pairs.
TEXTS = ("method", "path", "http_version", "scheme")
FILE = "file"


class Asked(NamedTuple):
    """What stands before the body of a request for a model."""

    name: str
    lines: bytes  # the header lines that reach the handler
    given_id: bytes  # the client's own


def express_meta(name: str, lines: bytes) -> bytes:
    """Return what stands before the body of a request for a model."""
    return b"%b\r\n%b" % (name.encode(), lines)


@remembered
def read_express_meta(meta: bytes) -> Asked:
    """Return what `express_meta` was given, and the id that the header lines hold, if they hold one."""
    name, _, lines = meta.partition(LINE_END)
    return Asked(name.decode(), lines, request_ids.given_in(lines))


def ordinary_body(scope: Mapping[str, Any], content: bytes, file: Path | None) -> bytes:
    """Return a request of the ordinary lane; its content is in a file if one is given."""
    told: dict[str, Any] = {name: scope[name] for name in TEXTS}
    told["raw_path"] = scope["raw_path"].decode("latin-1")
    told["query_string"] = scope["query_string"].decode("latin-1")
    told["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    told["client"], told["server"] = scope["client"], scope["server"]
    told[FILE] = None if file is None else str(file)
    return orjson.dumps(told) + b"\n" + content


def read_ordinary_body(body: bytes) -> tuple[MutableMapping[str, Any], bytes, Path | None]:
    """Return the ASGI scope, content and file of what `ordinary_body` made."""
    end = body.index(b"\n")
    scope: dict[str, Any] = orjson.loads(body[:end])
    file = scope.pop(FILE)
    scope["type"] = "http"
    scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
    scope["root_path"] = ""
    scope["raw_path"] = scope["raw_path"].encode("latin-1")
    scope["query_string"] = scope["query_string"].encode("latin-1")
    scope["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope["headers"]]
    for end_of_it in ("client", "server"):
        scope[end_of_it] = tuple(scope[end_of_it]) if scope[end_of_it] else None
    return scope, body[end + 1 :], None if file is None else Path(file)
