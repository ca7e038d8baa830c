"""Models in several processes, and processes that come and go under them."""

import concurrent.futures
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, read_all, wait_until, working_beside
from wheels import write_wheel

PID = (
    "import os, time\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(float(body))\n"
    "    return str(os.getpid()), accept\n"
)


def described(server: RunningServer, name: str) -> dict[str, object]:
    found: dict[str, object] = server.client.get(f"/models/{name}").json()
    return found


def hosts(server: RunningServer, name: str) -> list[int]:
    found: list[int] = server.client.get(f"/models/{name}").json()["hosts"]
    return found


@contextmanager
def traffic(server: RunningServer, name: str, value: object) -> Iterator[list[int]]:
    """Send requests from four threads while the block runs; the statuses are complete after it."""
    statuses: list[int] = []

    def send(_: int, is_over: threading.Event) -> None:
        while not is_over.is_set():
            statuses.append(server.invoke(name, value).status_code)

    with working_beside(send, 4):
        yield statuses


def test_workers_answer_at_the_same_time(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    folder = code_model(tmp_path / "m", PID)
    (folder / "mooring.toml").write_text("workers = 2\n")
    assert server.load("m", folder).status_code == 200
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        pids = {answer.json() for answer in pool.map(lambda _: server.invoke("m", 0.3), range(2))}
    assert len(pids) == 2


def test_scaling_under_traffic_loses_no_request(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("m", code_model(tmp_path / "m", PID))
    with traffic(server, "m", 0.01) as statuses:
        for workers in (3, 1, 2):
            assert server.client.put("/models/m", params={"min_worker": workers}).status_code == 200
            assert len(hosts(server, "m")) == workers
    assert set(statuses) == {200}
    assert server.client.put("/models/m", params={"min_worker": 0}).status_code == 422
    assert server.client.put("/models/nobody", params={"min_worker": 1}).status_code == 404


def test_one_of_two_workers_killed_loses_no_request_and_is_replaced(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, workers=2)
    server.load("m", code_model(tmp_path / "m", PID))
    before = hosts(server, "m")
    with traffic(server, "m", 0.01) as statuses:
        os.kill(before[0], 9)
        wait_until(lambda: before[0] not in hosts(server, "m") and len(hosts(server, "m")) == 2)
    assert set(statuses) == {200}


def test_process_is_replaced_after_its_requests_and_none_is_lost(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, recycle_requests=50)
    server.load("own", code_model(tmp_path / "own", PID))
    server.load("shared", scale_model(tmp_path / "shared"))
    first = [hosts(server, name) for name in ("own", "shared")]
    with traffic(server, "own", 0) as own, traffic(server, "shared", [[1, 2, 3]]) as shared:
        wait_until(lambda: all(hosts(server, name) not in first for name in ("own", "shared")))
    assert set(own) == set(shared) == {200}
    gone = {pid for pids in first for pid in pids}
    wait_until(lambda: not gone & {process.pid for process in server.hosts()})


def test_process_that_has_grown_is_replaced(start_server: Servers, tmp_path: Path) -> None:
    code = (
        "import os\n"
        "kept = []\n"
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    kept.append(bytearray(b'x' * (1 << 20)))\n"
        "    return str(os.getpid()), accept\n"
    )
    server = start_server(tmp_path, recycle_growth_bytes=32 << 20)
    server.load("leaks", code_model(tmp_path / "leaks", code))
    first = server.invoke("leaks", 0).json()
    wait_until(lambda: server.invoke("leaks", 0).json() != first)


def test_unload_cancels_a_load(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    folder = code_model(tmp_path / "m", "import time\ndef model_fn(model_dir): time.sleep(100)\n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(server.load, "m", folder)
        wait_until(lambda: described(server, "m").get("status") == "loading")
        assert server.client.delete("/models/m").status_code == 200
        assert loading.result().status_code == 409
        assert "unloaded while it was loading" in loading.result().json()["message"]
    assert server.client.get("/models/m").status_code == 404
    wait_until(lambda: server.hosts() == [])


def test_unload_cancels_a_load_whose_host_is_still_being_started(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    folder = code_model(tmp_path / "m", "import time\ndef model_fn(model_dir): time.sleep(100)\n")
    (zygote,) = psutil.Process(server.process.pid).children()
    zygote.suspend()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, server.connect() as connection:
        loading = pool.submit(server.load, "m", folder)
        wait_until(lambda: described(server, "m").get("status") == "loading")
        connection.sendall(b"DELETE /models/m HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert described(server, "m")["status"] == "loading"  # answered after the unload has begun
        zygote.resume()
        assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert loading.result().status_code == 409
    wait_until(lambda: server.hosts() == [])


def test_model_is_warmed_up_before_it_is_ready(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    code = (
        "import os, time\n"
        "def model_fn(model_dir): return model_dir\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    while not os.path.exists(model + '/go'): time.sleep(0.01)\n"
        "    return body, accept\n"
    )
    folder = code_model(tmp_path / "m", code)
    (folder / "mooring.toml").write_text('[[warm_up]]\nbody = "[1]"\n')
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(server.load, "m", folder)
        wait_until(lambda: described(server, "m").get("status") == "warming")
        (folder / "go").touch()
        assert loading.result().status_code == 200


def test_model_that_fails_its_own_sample_does_not_load_and_says_why(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    folder = scale_model(tmp_path / "m")
    (folder / "mooring.toml").write_text('[[warm_up]]\nbody = "[[1, 2]]"\n')
    answer = server.load("m", folder)
    assert answer.status_code == 500
    assert "Warm-up sample number 1 failed" in answer.json()["message"]
    failed = described(server, "m")
    assert (failed["status"], failed["bytes"]) == ("failed", 0)
    assert "Warm-up sample" in str(failed["reason"])
    # 404 lets a platform load it again, and the reason is not lost.
    assert server.invoke("m", []).status_code == 404
    assert "Warm-up sample" in server.invoke("m", []).json()["message"]
    (folder / "mooring.toml").unlink()
    assert server.load("m", folder).status_code == 200


def test_idle_model_goes_and_a_pinned_one_stays(start_server: Servers, tmp_path: Path) -> None:
    for name in ("idle", "pinned"):
        scale_model(tmp_path / name)
    server = start_server(tmp_path, "repository", eviction="reuse", idle_seconds=1.0)
    for name in ("idle", "pinned"):
        assert server.invoke(name, [[1, 2, 3]]).status_code == 200
    assert server.client.put("/models/pinned", params={"pinned": True}).status_code == 200
    wait_until(lambda: server.client.get("/models/idle").status_code == 404)
    assert described(server, "pinned")["status"] == "ready"
    assert server.invoke("idle", [[1, 2, 3]]).status_code == 200


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_idle_model_stays_where_nothing_would_load_it_again(start_server: Servers, tmp_path: Path, mode: str) -> None:
    """Its process is replaced by the same upkeep, after it has looked for idle models many times."""
    folder = scale_model(tmp_path / "model")
    server = start_server(folder if mode == "single" else tmp_path, mode, idle_seconds=0.01, recycle_seconds=2.0)
    if mode == "multi":
        assert server.load("model", folder).status_code == 200
    wait_until(lambda: "is replaced" in server.log.read_text(), 20)
    assert "had no request" not in server.log.read_text()
    assert server.invoke("model", [[1, 2, 3]]).json() == [[2, 4, 6]]


def test_models_with_different_versions_of_a_package_work_side_by_side(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, variables={"MOORING_SITE_CACHE": str(tmp_path / ".site")})
    code = (
        "import colour\n"
        "def model_fn(model_dir): return colour.VERSION\n"
        "def transform_fn(model, body, content_type, accept): return '\"' + model + '\"', accept\n"
    )
    for version in ("1.0", "2.0"):
        folder = code_model(tmp_path / version, code)
        (folder / "code/requirements.txt").write_text(f"colour=={version}\n")
        write_wheel(folder / "code/wheels", "colour", version)
        assert server.load(version, folder).status_code == 200, server.log.read_text()
    assert [server.invoke(version, []).json() for version in ("1.0", "2.0")] == ["1.0", "2.0"]
    # Cached by content: the second load installs nothing.
    server.client.delete("/models/1.0")
    installed = server.log.read_text().count("is installed")
    assert server.load("1.0", tmp_path / "1.0").status_code == 200
    assert server.log.read_text().count("is installed") == installed


def test_package_that_cannot_be_installed_fails_the_load_and_says_so(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, variables={"MOORING_SITE_CACHE": str(tmp_path / ".site")})
    folder = code_model(tmp_path / "m", "def model_fn(model_dir): return None\n")
    (folder / "code/requirements.txt").write_text("colour==9.9\n")
    write_wheel(folder / "code/wheels", "colour", "1.0")
    answer = server.load("m", folder)
    assert answer.status_code == 500
    assert "pip install -r requirements.txt failed" in answer.json()["message"]


def test_workers_for_whom_there_is_no_memory_are_refused_before_they_are_started(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path, budget=512 << 20)
    assert server.load("m", code_model(tmp_path / "m", PID)).status_code == 200
    wait_until(lambda: server.client.get("/models/m").json()["bytes"] > 4 << 20)  # once it has been looked at
    answer = server.client.put("/models/m?min_worker=1000&synchronous=true")
    assert answer.status_code == 507
    assert len(server.client.get("/models/m").json()["hosts"]) == 1
    assert server.client.put("/models/m?min_worker=2&synchronous=true").status_code == 200
    assert len(server.client.get("/models/m").json()["hosts"]) == 2


def test_process_is_not_replaced_under_a_model_that_is_being_loaded_into_it(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path, shared_hosts=1, recycle_seconds=0.3, constants={"upkeep.CHECK_S": 0.05})
    large = scale_model(tmp_path / "large", padding_floats=20 << 20)
    for _ in range(8):
        assert server.load("large", large).status_code == 200
        assert server.invoke("large", [[1, 2, 3]]).json() == [[2, 4, 6]]
        assert server.client.delete("/models/large").status_code == 200
    assert server.log.read_text().count("is replaced: it is") > 2
    assert "ended meanwhile" not in server.log.read_text()
