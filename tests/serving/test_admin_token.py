"""Who may load and unload: an open management port on every interface made other servers run anybody's code."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from models import scale_model
from networks import own_address
from servers import RunningServer, Servers, wait_until

from mooring.serving.admission import is_loopback
from mooring.serving.settings import Limits, Mode, ServerSettings

TOKEN = "ein Schlüssel, den niemand errät"


pytestmark = pytest.mark.skipif(not own_address(), reason="this machine has no address but its loopback")
ADMIN = [
    ("POST", "/models"),
    ("DELETE", "/models/m"),
    ("PUT", "/models/m?min_worker=1"),
    ("POST", "/v2/repository/models/m/load"),
    ("POST", "/v2/repository/models/m/unload"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    scale_model(root / "m")
    return root


@pytest.fixture(scope="module")
def guarded(start_server: Servers, root: Path, fronts: int) -> RunningServer:
    return start_server(root, "repository", host="0.0.0.0", admin_token=TOKEN, fronts=fronts)


def stranger(server: RunningServer, token: str = "") -> httpx.Client:
    headers = {b"authorization": token.encode()} if token else {}
    return httpx.Client(base_url=f"http://{own_address()}:{server.port}", timeout=30, headers=headers)


@pytest.fixture
def anybody(guarded: RunningServer) -> Iterator[httpx.Client]:
    with stranger(guarded) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ADMIN)
@pytest.mark.parametrize(
    "token", ["", TOKEN, "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"]
)
def test_stranger_without_the_token_changes_nothing(guarded: RunningServer, token: str, method: str, path: str) -> None:
    with stranger(guarded, token) as client:
        answer = client.request(method, path, json={"model_name": "m", "url": "/"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_stranger_with_the_token_loads_and_unloads(guarded: RunningServer, root: Path) -> None:
    with stranger(guarded, f"Bearer {TOKEN}") as client:
        assert client.post("/models", json={"model_name": "x", "url": str(root / "m")}).status_code == 200
        assert client.put("/models/x", params={"pinned": True}).status_code == 200
        assert client.delete("/models/x").status_code == 200
        assert client.post("/v2/repository/models/m/load").status_code == 200
        assert client.post("/v2/repository/models/m/unload").status_code == 200


def test_predictions_and_questions_need_no_token(anybody: httpx.Client) -> None:
    assert anybody.post("/models/m/invoke", content=b"[[1, 2, 3]]").json() == [[2, 4, 6]]
    for path in ("/ping", "/models", "/models/m", "/metrics", "/v2/models/m"):
        assert anybody.get(path).status_code == 200
    assert anybody.post("/v2/repository/index").status_code == 200


def test_this_machine_needs_no_token(guarded: RunningServer, root: Path) -> None:
    assert guarded.load("local", root / "m").status_code == 200
    assert guarded.client.delete("/models/local").status_code == 200


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "X-Real-IP"])
def test_who_asks_a_proxy_on_this_machine_is_not_this_machine(guarded: RunningServer, root: Path, header: str) -> None:
    passed_on = {header: "for=10.0.0.9"}
    for method, path in ADMIN:
        assert guarded.client.request(method, path, json={}, headers=passed_on).status_code == 401
    assert guarded.client.get("/console", headers=passed_on).status_code in (403, 404)
    signed = {**passed_on, "authorization": "Bearer " + TOKEN}
    headers = {name.encode(): value.encode() for name, value in signed.items()}
    url = {"model_name": "behind", "url": str(root / "m")}
    assert guarded.client.post("/models", json=url, headers=headers).status_code == 200
    assert guarded.client.delete("/models/behind", headers=headers).status_code == 200


def test_token_is_not_logged(guarded: RunningServer) -> None:
    assert "admin_token=***" in guarded.log.read_text()
    assert TOKEN not in guarded.log.read_text()


def test_code_of_models_does_not_see_the_token(start_server: Servers, root: Path) -> None:
    server = start_server(root, variables={"MOORING_ADMIN_TOKEN": TOKEN})
    assert server.load("m", root / "m").status_code == 200
    for process in server.family():
        assert "MOORING_ADMIN_TOKEN" not in process.environ()


def test_without_a_token_strangers_are_refused(start_server: Servers, root: Path) -> None:
    server = start_server(root, "repository", host="0.0.0.0")
    with stranger(server) as client:
        for method, path in ADMIN:
            answer = client.request(method, path, json={"model_name": "m", "url": "/"})
            assert answer.status_code == 403
            assert "MOORING_ADMIN_TOKEN" in answer.text


def test_platform_may_load_from_anywhere_because_its_contract_has_no_token(start_server: Servers, root: Path) -> None:
    server = start_server(root, "multi", host="0.0.0.0")
    with stranger(server) as client:
        assert client.post("/models", json={"model_name": "m", "url": str(root / "m")}).status_code == 200
        assert client.delete("/models/m").status_code == 200


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_address_alone(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own


def test_settings_in_words_hide_the_token() -> None:
    settings = ServerSettings(Mode.MULTI, Path(), limits=Limits(admin_token=TOKEN))
    assert TOKEN not in settings.described()
    assert "admin_token=***" in settings.described()
    assert TOKEN not in repr(settings)


def test_client_that_has_gone_before_it_is_heard_is_nobody_on_this_machine(
    guarded: RunningServer,
) -> None:
    """A connection that was reset has no address any more, but what was sent on it is still read."""
    assert guarded.client.post("/models/m/invoke", content=b"[[1, 2, 3]]").status_code == 200
    refused = 'mooring_errors_total{error="UnauthorizedException",status="401"}'
    before = sample(guarded, refused)
    accepting = [psutil.Process(guarded.process.pid), *guarded.family()]
    for process in accepting:
        process.suspend()
    try:
        with socket.create_connection((own_address(), guarded.port), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"DELETE /models/m HTTP/1.1\r\nhost: x\r\n\r\n")
    finally:
        for process in accepting:
            process.resume()
    wait_until(lambda: sample(guarded, refused) == before + 1)
    assert guarded.client.get("/models/m").json()["status"] == "ready"


def sample(server: RunningServer, name: str) -> float:
    """A number of /metrics."""
    lines = server.client.get("/metrics").text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)
