"""Stateful sessions: a client's requests go to the same process, which has a folder for what it keeps between them.

The headers and bodies are the platform's; it keeps a session on one instance, and we keep it on one host.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from .errors import SessionError
from .invocation_link import InvocationLink
from .settings import Limits

HEADER = b"x-amzn-sagemaker-session-id"
FOLDER_HEADER = "x-mooring-session-dir"
OPENED_HEADER = "x-amzn-sagemaker-new-session-id"
CLOSED_HEADER = "x-amzn-sagemaker-closed-session-id"
NEW_SESSION = "NEW_SESSION"
CLOSE = "CLOSE"
# A body that asks for a session and nothing else is short.
MOST_COMMAND_BYTES = 1024


@dataclass(eq=False)
class Session:
    """A session, until it is closed or expires."""

    id: str
    model: str
    expires: datetime
    folder: Path
    link: InvocationLink | None = None  # the host that has its state

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What its model is told of it with each request."""
        return [(HEADER.decode(), self.id), (FOLDER_HEADER, str(self.folder))]

    @property
    def announcement(self) -> str:
        """What the client that opened it is told."""
        return f"{self.id}; Expires={self.expires:%Y-%m-%dT%H:%M:%SZ}"


class Sessions:
    """The sessions of this server."""

    def __init__(self, limits: Limits, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._limits = limits
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def enter(self, given: str, model: str) -> Session:
        """Return the session that a request names, or a new one if it asks for one.

        Raises `SessionError` if sessions are off, or if there is no such session of this model any more.
        """
        if not self._limits.enable_stateful_sessions:
            raise SessionError("Sessions are off. Turn them on with MOORING_ENABLE_STATEFUL_SESSIONS=true.")
        self.drop_expired()
        if given == NEW_SESSION:
            return self._open(model)
        session = self._sessions.get(given)
        if session is None or session.model != model:
            raise SessionError("There is no such session, or it has expired. Open one with the id NEW_SESSION.")
        return session

    def _open(self, model: str) -> Session:
        name = str(uuid.uuid4())
        folder = Path(self._limits.sessions_path) / name
        folder.mkdir(mode=0o700, parents=True)
        expires = datetime.fromtimestamp(self._clock().timestamp() + self._limits.session_seconds, UTC)
        self._sessions[name] = Session(name, model, expires, folder)
        return self._sessions[name]

    def close(self, session: Session) -> None:
        """Forget a session and delete its folder."""
        self._sessions.pop(session.id, None)
        shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self) -> None:
        """Close every session."""
        for session in list(self._sessions.values()):
            self.close(session)

    def drop_expired(self) -> None:
        """Close the sessions whose time is over: their folders lie in memory."""
        now = self._clock()
        for session in [session for session in self._sessions.values() if session.expires <= now]:
            self.close(session)


def command(body: bytes) -> str | None:
    """Return the request type of a body that opens or closes a session and does nothing else, None for any other."""
    if len(body) > MOST_COMMAND_BYTES or b"requestType" not in body:
        return None
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    kind = given.get("requestType") if isinstance(given, dict) else None
    return kind if kind in (NEW_SESSION, CLOSE) else None
