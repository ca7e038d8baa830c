"""The console over HTTP: what its snapshot holds, how small it stays, and to whom it answers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from models import scale_model
from servers import RunningServer, Servers, free_port, wait_until

from mooring.contract.errors import SettingError
from mooring.handler.model_config import ModelConfig
from mooring.handler.resolve import HandlerChoice, HandlerKind
from mooring.serving.admission import Admission
from mooring.serving.app import create_app
from mooring.serving.console import Audience, snapshot
from mooring.serving.door import Door, Health
from mooring.serving.errors import ConsoleRefusedError
from mooring.serving.histogram import BOUNDS
from mooring.serving.lifecycle import State
from mooring.serving.residency import ModelRecord, ResidencyTable
from mooring.serving.resident import Resident
from mooring.serving.settings import ConsoleAccess, Limits, from_variables, limits

PATHS = ("/console", "/console/data")
CHOICE = HandlerChoice(HandlerKind.ONNX, Path("/m"), (), "it holds model.onnx", ModelConfig())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    server = start_server(root, console="local", budget=512 << 20)
    for name in ("iris", "prices"):
        assert server.load(name, scale_model(root / name)).status_code == 200
    return server


def data(server: RunningServer, **query: str) -> Any:
    answer = server.client.get("/console/data", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_snapshot_tells_of_the_server_and_of_each_model(server: RunningServer) -> None:
    for _ in range(3):
        server.invoke("iris", [[1, 2, 3]])
    seen = data(server)
    assert (seen["health"], seen["states"], seen["inFlight"]) == ("Healthy", {"ready": 2}, 0)
    assert seen["memory"]["budget"] == 512 << 20
    assert seen["memory"]["models"] == sum(model["bytes"] for model in seen["models"])
    iris = next(model for model in seen["models"] if model["modelName"] == "iris")
    described = server.client.get("/models/iris").json()
    assert {key: iris[key] for key in described} == described
    assert iris["hits"] == sum(iris["latency"]) == 3
    assert len(iris["latency"]) == len(seen["bounds"]) + 1
    assert data(server)["uptimeSeconds"] > seen["uptimeSeconds"]


def test_count_of_answers_does_not_fall_when_a_model_goes(server: RunningServer, root: Path) -> None:
    server.load("passing", scale_model(root / "passing"))
    server.invoke("passing", [[1, 2, 3]])
    before = sum(data(server)["latency"])
    server.client.delete("/models/passing")
    assert sum(data(server)["latency"]) == before


def test_models_are_found_by_part_of_their_name_and_by_state(server: RunningServer, root: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken/model.onnx").write_bytes(b"not a model")
    server.load("broken", root / "broken")
    assert [model["modelName"] for model in data(server, find="RIC")["models"]] == ["prices"]
    assert [model["modelName"] for model in data(server, state="failed")["models"]] == ["broken"]
    assert data(server, find="iris", state="failed")["models"] == []
    assert data(server, find="iris")["states"] == {"ready": 2, "failed": 1}
    assert server.client.get("/console/data?state=sunk").status_code == 422


def test_name_that_is_not_of_this_machine_is_refused_as_are_pages_that_rebind_it(server: RunningServer) -> None:
    for path in PATHS:
        answer = server.client.get(path, headers={"host": f"evil.example:{server.port}"})
        assert answer.status_code == 403
        assert answer.json()["type"] == "AccessDeniedException"
        assert "'evil.example' is not a name of this machine" in answer.json()["message"]
        assert server.client.get(path, headers={"host": f"localhost:{server.port}"}).status_code == 200


def test_page_may_run_only_what_is_in_it_and_ask_only_this_server(server: RunningServer) -> None:
    answer = server.client.get("/console")
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    for path in PATHS:
        headers = server.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


# --- whom it answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "box.example:80"]
)
def test_clients_on_this_machine_are_answered_by_its_names(client: str, host: str) -> None:
    Audience(ConsoleAccess.LOCAL, "Box.example").check(client, host)


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("10.0.0.7", "localhost"),
        ("::ffff:10.0.0.7", "localhost"),
        ("", "localhost"),
        ("127.0.0.1", "evil.example"),
        ("127.0.0.1", "localhost.evil.example"),
        ("127.0.0.1", "127.0.0.1.evil.example"),
        ("127.0.0.1", "evil.example:127.0.0.1"),
        ("127.0.0.1", "10.0.0.7"),
        ("127.0.0.1", "[::1.evil"),
        ("127.0.0.1", ""),
    ],
)
def test_others_are_refused_unless_it_is_open_to_all(client: str, host: str) -> None:
    with pytest.raises(ConsoleRefusedError, match="MOORING_CONSOLE=anywhere"):
        Audience(ConsoleAccess.LOCAL, "0.0.0.0").check(client, host)
    Audience(ConsoleAccess.ANYWHERE, "0.0.0.0").check(client, host)


@dataclass
class FakeCatalog:
    """As much of a catalog as the console asks for."""

    table: ResidencyTable
    models: Sequence[Resident] = ()

    def residents(self) -> Sequence[Resident]:
        return self.models


@dataclass
class FakeUpkeep:
    proportional_bytes: int = 0


def quiet_door() -> Door:
    return Door(lambda _: None, lambda: Health.READY, Limits(), "", None, cast("Any", None))


def ask(access: ConsoleAccess, client: str, path: str) -> httpx.Response:
    """What the application answers to a client at an address."""
    app = create_app(
        quiet_door(),
        cast("Any", FakeCatalog(ResidencyTable(1 << 30))),
        cast("Any", None),
        cast("Any", FakeUpkeep()),
        Admission("", is_open=False),
        Audience(access, "0.0.0.0"),
    )

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 4242))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asked:
            return await asked.get(path)

    return asyncio.run(get())


@pytest.mark.parametrize("path", PATHS)
def test_client_on_another_machine_is_refused_and_told_why(path: str) -> None:
    answer = ask(ConsoleAccess.LOCAL, "10.0.0.7", path)
    assert answer.status_code == 403
    assert "on the server's own machine, and you are 10.0.0.7" in answer.json()["message"]
    assert ask(ConsoleAccess.ANYWHERE, "10.0.0.7", path).status_code == 200
    assert ask(ConsoleAccess.OFF, "127.0.0.1", path).status_code == 404


# --- when it is there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "access"),
    [
        ({}, ConsoleAccess.OFF),
        ({"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": "8081"}, ConsoleAccess.OFF),
        ({"MOORING_CONSOLE": "local"}, ConsoleAccess.LOCAL),
        ({"MOORING_CONSOLE": "anywhere"}, ConsoleAccess.ANYWHERE),
    ],
)
def test_under_the_platform_there_is_no_console_unless_asked_for(
    variables: dict[str, str], access: ConsoleAccess
) -> None:
    assert from_variables(variables).console is access


def test_setting_that_means_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match="auto, off, local or anywhere"):
        limits({"MOORING_CONSOLE": "yes"})


@pytest.mark.parametrize(
    ("arguments", "variables", "status"),
    [
        (["--repository", "."], {}, 200),
        (["--repository", ".", "--console", "off"], {}, 404),
        ([], {"SAGEMAKER_MULTI_MODEL": "true"}, 404),
    ],
)
def test_command_answers_on_ones_own_machine_and_not_under_the_platform(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], status: int
) -> None:
    port = free_port()
    command = [sys.executable, "-c", "from mooring.cli.serve import main; main()", *arguments]
    variables |= {"SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_BASE_DIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ | variables, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(port), 30)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                assert [client.get(path).status_code for path in PATHS] == [status, status]
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- bounds -------------------------------------------------------------------------------------------------------


def resident(number: int) -> Resident:
    record = ModelRecord(number, f"model-{number}", f"/m/{number}", Path("/m"), "onnx", 1, 1, State.READY)
    record.hits = number
    record.latency.observe(0.002)
    return Resident(record, CHOICE)


def test_snapshot_of_ten_thousand_models_holds_the_busiest_hundred_and_totals() -> None:
    residents = [resident(number) for number in range(1, 10_001)]
    residents[3].record.enter(State.FAILED, "no " * 10_000)
    catalog = cast("Any", FakeCatalog(ResidencyTable(1 << 30), residents))
    seen = snapshot(catalog, cast("Any", FakeUpkeep()))
    assert [model["hits"] for model in seen["models"]] == [*range(10_000, 9_900, -1)]
    assert (seen["found"], seen["states"]) == (10_000, {"ready": 9999, "failed": 1})
    assert sum(seen["latency"]) == seen["latency"][BOUNDS.index(0.0025)] == 10_000
    assert len(json.dumps(seen)) < 100_000
    failed = snapshot(catalog, cast("Any", FakeUpkeep()), state=State.FAILED)["models"]
    assert len(failed[0]["reason"]) == 1000
