"""What both HTTP lanes share: how a request becomes an invocation, and what the server says of itself."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mooring.contract.errors import MooringError

from .heads import Heads
from .http_errors import JSON_LINE, classify, to_response
from .invocation import Invocation
from .observer import Observer
from .sessions import Sessions
from .settings import Limits

logger = logging.getLogger("mooring.requests")

# From here on an error is not the client's.
LEAST_LOGGED_STATUS = 500
# In a second: an overload is told by its count.
MOST_ERRORS_LOGGED = 10
# Headers that reach a handler: what the platform's contract names, traces, and whatever a client prefixes with x-.
FORWARDED = frozenset({b"content-type", b"accept", b"traceparent", b"tracestate"})
# Headers that the front door says things with; a client's are dropped.
OWN_PREFIX = b"x-mooring-"
INVOKE_PREFIX = b"/models/"
INVOKE_SUFFIX = b"/invoke"
# Characters that give a path another meaning than its bytes; such paths take the ordinary lane, which decodes them.
SPECIAL = frozenset(b"%?#/")


class Health(Enum):
    """How the server is, in the words that clients of multi-model-server know."""

    READY = "Healthy"
    DEGRADED = "Partial Healthy"  # answers, with fewer workers than it should have
    STARTING = "Not ready"
    FAILED = "Unhealthy"


ANSWERING = frozenset({Health.READY, Health.DEGRADED})


@dataclass
class Door:
    """The server as its HTTP lanes see it."""

    invoke: Callable[[Invocation], None]
    health: Callable[[], Health]
    limits: Limits
    default_accept: str
    single_model: str | None  # what /invocations means; None in multi-model mode
    sessions: Sessions
    spool_folder: Path  # for bodies that are too large to keep
    observer: Observer | None = None
    answers_pings: bool = True  # in the express lane; who knows nothing of models leaves them to who does
    default_lines: bytes = b""  # the header lines that every answer has: the date
    heads: Heads = field(default_factory=Heads)
    fronts: int = 0  # processes that speak HTTP in this one's stead, and those that ended unasked
    front_deaths: int = 0
    refused: Counter[tuple[int, str]] = field(default_factory=Counter)  # status and type of error -> how often
    _logged_in: int = 0  # the second in which errors were logged last, and how many were, and were not
    _logged: int = 0
    _suppressed: int = 0

    def ping_answer(self) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body of an answer to /ping."""
        health = self.health()
        return 200 if health in ANSWERING else 503, JSON_LINE, b'{"status": "%b"}' % health.value.encode()

    def refuse(self, error: MooringError, name: str, request_id: bytes) -> tuple[int, bytes, bytes]:
        """Return the answer that an error becomes; count it, and log it if the fault is on this side."""
        status, kind = classify(error)
        self.refused[status, kind] += 1
        if status >= LEAST_LOGGED_STATUS:
            self._log(status, error, name, request_id)
        return to_response(error)

    def _log(self, status: int, error: MooringError, name: str, request_id: bytes) -> None:
        now = int(time.monotonic())
        if now != self._logged_in:
            if self._suppressed:
                logger.warning("%d more requests failed.", self._suppressed)
            self._logged_in, self._logged, self._suppressed = now, 0, 0
        if self._logged >= MOST_ERRORS_LOGGED:
            self._suppressed += 1
            return
        self._logged += 1
        about = {"model": name, "request_id": request_id.decode("latin-1"), "status": status}
        logger.warning("Answered %d: %s", status, error, extra=about)

    @property
    def is_ready(self) -> bool:
        """Whether the server can answer."""
        return self.health() in ANSWERING

    def target(self, url: bytes) -> str | None:
        """Return the model that a POST to this raw path invokes, or None if the path needs a closer look."""
        if url == b"/invocations":
            return self.single_model
        if url.startswith(INVOKE_PREFIX) and url.endswith(INVOKE_SUFFIX):
            name = url[len(INVOKE_PREFIX) : -len(INVOKE_SUFFIX)]
            if name and SPECIAL.isdisjoint(name):
                return name.decode("ascii", "replace")
        return None

    def request_lines(self, headers: Iterable[tuple[bytes, bytes]], ours: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """Return the lines that reach the handler; an accept that accepts everything becomes the default one."""
        lines = [b"%b: %b\r\n" % pair for pair in ours]
        accepts = False
        for name, value in headers:
            if name not in FORWARDED and (name[:2] != b"x-" or name[:10] == OWN_PREFIX):
                continue
            if name == b"accept":
                if not value or value == b"*/*":
                    continue
                accepts = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not accepts:
            lines.append(b"accept: %b\r\n" % self.default_accept.encode())
        return b"".join(lines)
