"""Stateful sessions, against a real server."""

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from models import code_model
from servers import RunningServer, Servers, wait_until

from mooring.serving.errors import SessionError
from mooring.serving.sessions import NEW_SESSION, Sessions, command
from mooring.serving.settings import Limits

HEADER = "x-amzn-sagemaker-session-id"
OPENED = "x-amzn-sagemaker-new-session-id"
CLOSED = "x-amzn-sagemaker-closed-session-id"
# Counts the requests of a session in its process and in its folder.
CODE = """
import collections, json, os, pathlib
seen = collections.Counter()
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context):
    session = context.session_id
    seen[session] += 1
    (pathlib.Path(context.session_dir) / str(seen[session])).touch()
    if json.loads(body) == "bye":
        context.set_response_header(0, "X-Amzn-SageMaker-Closed-Session-Id", session)
    return json.dumps([seen[session], len(os.listdir(context.session_dir)), os.getpid()]), "application/json"
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, tmp_path_factory: pytest.TempPathFactory, fronts: int) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    server = start_server(
        root,
        enable_stateful_sessions=True,
        sessions_path=str(root / ".sessions"),
        workers=3,
        spool_bytes=1000,
        fronts=fronts,
    )
    assert server.load("m", code_model(root / "m", CODE)).status_code == 200
    return server


def ask(server: RunningServer, session: str, value: object = "hello") -> httpx.Response:
    return server.invoke("m", value, **{HEADER: session})


def test_session_stays_with_the_process_that_has_its_state(server: RunningServer) -> None:
    opened = ask(server, NEW_SESSION)
    session, _, expires = opened.headers[OPENED].partition("; Expires=")
    assert datetime.fromisoformat(expires) > datetime.now(UTC)
    answers = [opened.json(), *(ask(server, session).json() for _ in range(5))]
    assert [answer[:2] for answer in answers] == [[count, count] for count in range(1, 7)]
    assert len({pid for _, _, pid in answers}) == 1


def test_session_that_is_closed_or_unknown_is_refused(server: RunningServer) -> None:
    session = ask(server, NEW_SESSION).headers[OPENED].partition(";")[0]
    assert ask(server, session, "bye").headers[CLOSED] == session
    for gone in (session, "nonsense"):
        assert ask(server, gone).status_code == 400
        assert "NEW_SESSION" in ask(server, gone).json()["message"]


def test_body_alone_opens_and_closes_a_session(server: RunningServer) -> None:
    opened = ask(server, NEW_SESSION, {"requestType": "NEW_SESSION"})
    session = opened.headers[OPENED].partition(";")[0]
    assert opened.content == b""
    assert ask(server, session).json()[0] == 1
    assert ask(server, session, {"requestType": "CLOSE"}).headers[CLOSED] == session
    assert ask(server, session).status_code == 400


def test_body_that_is_kept_in_a_file_arrives_in_a_session_too(server: RunningServer) -> None:
    session = ask(server, NEW_SESSION).headers[OPENED].partition(";")[0]
    assert ask(server, session, "x" * 5000).json()[0] == 2


def test_sessions_are_off_unless_asked_for(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("m", code_model(tmp_path / "m", CODE))
    assert "Sessions are off" in ask(server, NEW_SESSION).json()["message"]


def test_expired_session_is_gone_with_its_folder(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    times = [now]
    limits = Limits(enable_stateful_sessions=True, session_seconds=60, sessions_path=str(tmp_path))
    sessions = Sessions(limits, lambda: times[0])
    session = sessions.enter(NEW_SESSION, "m")
    assert session.announcement.endswith("; Expires=2026-01-01T00:01:00Z")
    assert sessions.enter(session.id, "m") is session
    with pytest.raises(SessionError):
        sessions.enter(session.id, "another model")
    times[0] = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    with pytest.raises(SessionError):
        sessions.enter(session.id, "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"requestType": "OTHER"}', b'"requestType"', b'{"requestType": '])
def test_other_bodies_are_no_commands(body: bytes) -> None:
    assert command(body) is None
    assert command(json.dumps({"requestType": "CLOSE"}).encode()) == "CLOSE"


def test_expired_session_goes_without_another_request(start_server: Servers, tmp_path: Path) -> None:
    folders = tmp_path / ".sessions"
    server = start_server(tmp_path, enable_stateful_sessions=True, sessions_path=str(folders), session_seconds=1.0)
    assert server.load("m", code_model(tmp_path / "m", CODE)).status_code == 200
    assert OPENED in ask(server, NEW_SESSION).headers
    assert len(list(folders.iterdir())) == 1
    wait_until(lambda: not list(folders.iterdir()))
