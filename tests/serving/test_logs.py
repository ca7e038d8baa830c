"""What the server's log says of requests, and how each is named in its answer, in the log and to its model."""

import json
from pathlib import Path
from typing import Any

import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, wait_until

LANES = ("", "?ordinary")
CODE = """
import logging
def model_fn(model_dir): return None
def transform_fn(model, body, content_type, accept, context):
    logging.getLogger("mine").warning("at work")
    if body == "raise": raise ValueError("secret")
    return context.get_request_header(0, "x-request-id") or "none", "text/plain"
"""


@pytest.fixture(scope="module")
def server(start_server: Servers, tmp_path_factory: pytest.TempPathFactory, fronts: int) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    variables = {"MOORING_LOG_FORMAT": "json"}
    server = start_server(root, variables=variables, log_format="json", access_log=True, fronts=fronts)
    assert server.load("code", code_model(root / "code", CODE)).status_code == 200
    assert server.load("scale", scale_model(root / "scale")).status_code == 200
    return server


def lines(server: RunningServer, **wanted: Any) -> list[dict[str, Any]]:
    """The log's objects that have these values."""
    found = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in found if wanted.items() <= line.items()]


@pytest.mark.parametrize("lane", LANES)
def test_id_of_the_client_is_in_the_answer_the_log_and_the_models_hands(server: RunningServer, lane: str) -> None:
    name = f"mine{lane}"
    answer = server.client.post(f"/models/code/invoke{lane}", content=b"x", headers={"x-request-id": name})
    assert answer.headers.get_list("x-request-id") == [name]
    assert answer.text == name
    wait_until(lambda: lines(server, logger="mine", model="code", request_id=name, message="at work"))
    wait_until(lambda: lines(server, logger="mooring.requests", request_id=name, status=200))


@pytest.mark.parametrize("lane", LANES)
def test_request_without_an_id_gets_one_that_its_hosts_log_knows(server: RunningServer, lane: str) -> None:
    answers = [server.client.post(f"/models/code/invoke{lane}", content=b"x") for _ in range(2)]
    first, second = (answer.headers["x-request-id"] for answer in answers)
    assert first != second
    wait_until(lambda: lines(server, logger="mine", request_id=first) and lines(server, request_id=second))


@pytest.mark.parametrize("lane", LANES)
def test_failure_is_logged_with_its_traceback_under_the_id_that_the_client_was_told(
    server: RunningServer, lane: str
) -> None:
    answer = server.client.post(f"/models/code/invoke{lane}", content=b"raise")
    assert answer.status_code == 500
    name = answer.headers["x-request-id"]
    wait_until(lambda: lines(server, level="ERROR", request_id=name))
    assert any("ValueError: secret" in line.get("exception", "") for line in lines(server, request_id=name))
    wait_until(lambda: lines(server, logger="mooring.requests", level="WARNING", request_id=name, model="code"))


@pytest.mark.parametrize("path", ["/models/nobody/invoke", "/models/nobody/invoke?ordinary", "/nowhere"])
def test_answer_of_no_model_has_an_id_too(server: RunningServer, path: str) -> None:
    answer = server.client.post(path, content=b"x")
    assert answer.status_code == 404
    wait_until(lambda: lines(server, request_id=answer.headers["x-request-id"], status=404))


def test_pings_are_not_logged(server: RunningServer) -> None:
    for path in ("/ping", "/ping?ordinary"):
        assert "x-request-id" not in server.client.get(path).headers
    last = server.client.post("/models/scale/invoke", content=b"[[1,2,3]]").headers["x-request-id"]
    wait_until(lambda: lines(server, request_id=last))
    assert not any("ping" in line["message"] or line.get("path") == "/ping" for line in lines(server))


def test_flood_of_errors_is_told_by_its_count(server: RunningServer, tmp_path: Path) -> None:
    count = 60
    for _ in range(count):
        assert server.client.post("/models/code/invoke", content=b"raise").status_code == 500

    def told() -> bool:
        warnings = lines(server, logger="mooring.requests", level="WARNING")
        counted = sum(int(line["message"].split()[0]) for line in warnings if "more requests failed" in line["message"])
        return counted > 0 and len(warnings) < count

    def ask_and_look() -> bool:
        server.client.post("/models/code/invoke", content=b"raise")
        return told()

    wait_until(ask_and_look)


def test_client_cannot_write_lines_of_the_log(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, access_log=True)
    path = "/models/a%0A2026-01-01%20ERROR%20mooring:%20all%20is%20lost%1B[2J"
    assert server.client.get(path).status_code == 404
    wait_until(lambda: "a%0A2026-01-01%20ERROR" in server.log.read_text())
    assert "\x1b" not in server.log.read_text()
    assert not any(line.startswith("2026-01-01") for line in server.log.read_text().splitlines())
