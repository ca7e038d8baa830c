"""The console over HTTP: what its snapshot holds, how small it stays, and to whom it answers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import scale_model
from servers import RunningServer, free_port, wait_until

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
from mooring.serving.overview import MOST_LOOKED_AT, MOST_RANKED, Overview
from mooring.serving.residency import ModelRecord, ResidencyTable
from mooring.serving.resident import Resident
from mooring.serving.settings import ConsoleAccess, Limits, from_variables, limits

PATHS = ("/console", "/console/data")
CHOICE = HandlerChoice(HandlerKind.ONNX, Path("/m"), (), "it holds model.onnx", ModelConfig())


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
    """As much of a catalog as the console asks for, and how often it asked."""

    table: ResidencyTable
    described: int = 0

    def describe(self, name: str) -> Resident:
        self.described += 1
        return Resident(self.table.records[name], CHOICE)


@dataclass
class FakeUpkeep:
    proportional_bytes: int = 0


def quiet_door() -> Door:
    return Door(lambda _: None, lambda: Health.READY, Limits(), "", None, cast("Any", None), Path())


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


def loaded(table: ResidencyTable, name: str) -> ModelRecord:
    record, _ = table.admit(
        name, url=f"/m/{name}", path=Path("/m"), kind="onnx", artifact_bytes=1, available=1 << 40, now=0
    )
    record.enter(State.LOADING)
    record.enter(State.READY)
    table.measured(record, 1)
    return record


def answered(table: ResidencyTable, record: ModelRecord, count: int, now: float) -> None:
    """What dispatch does of requests."""
    table.history.used(record.name, now)
    record.last_used = now
    record.hits += count
    record.latency.observe_all([0.002] * count)


class CountingTable(ResidencyTable):
    """Counts how often a model's answers are taken in."""

    booked = 0

    def book(self, record: ModelRecord) -> int:
        self.booked += 1
        return super().book(record)


@pytest.fixture
def ten_thousand() -> FakeCatalog:
    table = CountingTable(1 << 40)
    for number in range(1, 10_001):
        loaded(table, f"model-{number}")
    return FakeCatalog(table)


def look(catalog: FakeCatalog, overview: Overview, **options: Any) -> dict[str, Any]:
    return snapshot(cast("Any", catalog), overview, cast("Any", FakeUpkeep()), **options)


def test_snapshot_of_ten_thousand_models_holds_the_busiest_hundred_and_totals(ten_thousand: FakeCatalog) -> None:
    table = ten_thousand.table
    for number, record in enumerate(table.records.values(), 1):
        answered(table, record, 1, now=number / 1000)
    table.records["model-4"].enter(State.FAILED, "no " * 10_000)
    overview = Overview(table)
    while sum(table.answered) < 10_000:
        overview.look()
    seen = look(ten_thousand, overview)
    assert [model["modelName"] for model in seen["models"]] == [f"model-{n}" for n in range(10_000, 9_900, -1)]
    assert (seen["found"], seen["states"]) == (10_000, {"ready": 9999, "failed": 1})
    assert sum(seen["latency"]) == seen["latency"][BOUNDS.index(0.0025)] == 10_000
    assert len(json.dumps(seen)) < 100_000
    failed = look(ten_thousand, overview, state=State.FAILED)["models"]
    assert len(failed[0]["reason"]) == 1000


def test_snapshot_describes_a_hundred_models_and_takes_in_as_many_however_many_are_asked(
    ten_thousand: FakeCatalog,
) -> None:
    table = cast("CountingTable", ten_thousand.table)
    for number, record in enumerate(table.records.values()):
        answered(table, record, 1, now=number / 1000)
    overview = Overview(table)
    look(ten_thousand, overview)
    assert (table.booked, ten_thousand.described) == (MOST_LOOKED_AT, 100)
    look(ten_thousand, overview, find="MODEL-1")
    assert (table.booked, ten_thousand.described) == (2 * MOST_LOOKED_AT, 200)
    while sum(table.answered) < 10_000:
        overview.look()
    overview.look()
    before = table.booked
    answered(table, table.records["model-5"], 3, now=11)
    assert look(ten_thousand, overview)["models"][0]["modelName"] == "model-5"
    assert table.booked - before <= 2  # it, and who was asked last before it


# --- the overview -------------------------------------------------------------------------------------------------


def test_requests_inside_are_counted_until_they_are_out() -> None:
    table = ResidencyTable(1 << 30)
    record = loaded(table, "a")
    overview = Overview(table)
    table.history.used("a", 1.0)
    record.leases = 2
    assert overview.look() == 2
    assert overview.look() == 2
    record.leases = 0
    record.latency.observe_all([0.002, 0.002])
    assert overview.look() == 0
    assert sum(table.answered) == 2


def test_busiest_is_who_is_asked_most_of_late() -> None:
    table = ResidencyTable(1 << 30)
    once, now_and_then = loaded(table, "once"), loaded(table, "now-and-then")
    overview = Overview(table)
    answered(table, once, 1000, now=0)
    answered(table, now_and_then, 10, now=0)
    overview.look()
    assert overview.busiest(2) == (2, ["once", "now-and-then"])
    answered(table, now_and_then, 10, now=600)
    overview.look()
    assert overview.busiest(2) == (2, ["now-and-then", "once"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), max_size=60))
def test_total_is_the_sum_whatever_comes_and_goes(steps: list[tuple[int, int]]) -> None:
    """Each step asks a model so often, at fifty it goes instead; now and then somebody looks."""
    table = ResidencyTable(1 << 30)
    overview = Overview(table)
    total = 0
    for now, (number, count) in enumerate(steps):
        name = f"m{number}"
        record = table.records.get(name) or loaded(table, name)
        if count == 50:
            table.remove(record)
        else:
            answered(table, record, count, now)
            total += count
        if count % 3 == 0:
            overview.look()
    overview.look()
    assert sum(table.answered) == total
    found, names = overview.busiest(100)
    assert (found, set(names)) == (len(table.records), set(table.records))
    assert {state: len(names) for state, names in table.standing.items() if names} == (
        {State.READY: found} if found else {}
    )


def test_when_many_of_the_busiest_have_gone_the_others_are_ranked() -> None:
    table = ResidencyTable(1 << 40)
    overview = Overview(table)
    names = [f"m{number}" for number in range(3 * MOST_RANKED)]
    for number, name in enumerate(names):
        record, _ = table.admit(name, url="", path=Path("/m"), kind="onnx", artifact_bytes=1, available=1 << 40, now=0)
        answered(table, record, 1 + number, now=number)
        overview.look()
    overview.look()
    for name in names[-2 * MOST_RANKED :]:
        table.remove(table.records[name])
    table.history.used("m0", now=len(names))
    overview.look()
    left = names[:MOST_RANKED]
    assert overview.busiest(3) == (len(left), left[:-4:-1])
