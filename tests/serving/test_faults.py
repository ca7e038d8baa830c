"""What dies, and what its death costs."""

import concurrent.futures
import json
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from models import code_model, scale_model, slow_model
from servers import Servers, alive, wait_until

SLEEPER = (
    "import os, time\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    time.sleep(float(body))\n"
    "    return str(os.getpid()), accept\n"
)
# Dies at each of the first N requests, counted in a file; answers after that.
DIES_N_TIMES = (
    "import os\n"
    "def model_fn(model_dir): return model_dir\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    path = os.path.join(model, 'deaths')\n"
    "    deaths = int(open(path).read()) if os.path.exists(path) else 0\n"
    "    if deaths < {times}:\n"
    "        open(path, 'w').write(str(deaths + 1))\n"
    "        os.kill(os.getpid(), {signal})\n"
    "    return str(deaths), accept\n"
)


def test_killed_host_loses_no_request(start_server: Servers, tmp_path: Path) -> None:
    """Requests under way when the shared host is killed are answered by its successor."""
    server = start_server(tmp_path)
    for name in ("a", "b"):
        server.load(name, scale_model(tmp_path / name))
    (host,) = server.hosts()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(server.invoke, "ab"[index % 2], [[index, 0, 0]]) for index in range(400)]
        answers[100].result()
        host.kill()
        for index, answer in enumerate(answers):
            assert answer.result().json() == [[2.0 * index, 0.0, 0.0]]
    assert host.pid not in {process.pid for process in server.hosts()}


def test_request_that_kills_its_host_once_is_answered_by_the_next(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    code = DIES_N_TIMES.format(times=1, signal=int(signal.SIGSEGV))
    server.load("m", code_model(tmp_path / "m", code))
    assert server.invoke("m", []).json() == 1


def test_request_that_kills_its_host_twice_is_told_and_the_next_one_works(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path)
    code = DIES_N_TIMES.format(times=2, signal=int(signal.SIGSEGV))
    server.load("m", code_model(tmp_path / "m", code))
    answer = server.invoke("m", [])
    assert answer.status_code == 500
    assert "SIGSEGV" in answer.json()["message"]
    assert server.invoke("m", []).json() == 2


def test_model_that_always_kills_its_host_is_set_aside_with_the_reason(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    code = DIES_N_TIMES.format(times=1000, signal=int(signal.SIGSEGV))
    server.load("bad", code_model(tmp_path / "bad", code))
    server.load("good", scale_model(tmp_path / "good"))
    for _ in range(2):
        assert server.invoke("bad", []).status_code >= 500
    assert server.client.get("/models/bad").json()["status"] == "failed"
    assert server.invoke("bad", []).status_code == 503
    assert server.invoke("good", [[1, 1, 1]]).status_code == 200
    assert server.client.delete("/models/bad").status_code == 200


def test_deaths_that_are_long_past_do_not_set_a_model_aside(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, constants={"residency.DEATHS_COUNT_FOR_S": 0.0})
    code = DIES_N_TIMES.format(times=4, signal=int(signal.SIGSEGV))
    server.load("m", code_model(tmp_path / "m", code))
    assert [server.invoke("m", []).status_code for _ in range(3)] == [500, 500, 200]
    described = server.client.get("/models/m").json()
    assert (described["status"], described["deaths"]) == ("ready", 4)


def test_model_unloaded_just_when_its_host_died_does_not_come_back(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    url = code_model(tmp_path / "m", SLEEPER)
    for _ in range(6):
        assert server.load("m", url).status_code == 200
        os.kill(server.client.get("/models/m").json()["hosts"][0], signal.SIGKILL)
        assert server.client.delete("/models/m").status_code == 200
        assert server.client.get("/models/m").status_code == 404
    wait_until(lambda: server.hosts() == [])
    assert server.invoke("m", 0).status_code == 404


def test_host_killed_while_it_computes_is_507_because_that_means_memory(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    code = DIES_N_TIMES.format(times=2, signal=int(signal.SIGKILL))
    server.load("m", code_model(tmp_path / "m", code))
    assert server.invoke("m", []).status_code == 507


def test_load_that_kills_its_host_is_507_and_others_live(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("good", scale_model(tmp_path / "good"))
    killer = code_model(tmp_path / "killer", "import os\ndef model_fn(model_dir): os.kill(os.getpid(), 9)\n")
    assert server.load("killer", killer).status_code == 507
    assert server.invoke("good", [[1, 1, 1]]).status_code == 200
    assert [model["modelName"] for model in server.client.get("/models").json()["models"]] == ["good"]


def test_handler_that_hangs_is_given_up_and_replaced(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, response_seconds=1.0)
    server.load("m", code_model(tmp_path / "m", SLEEPER))
    answer = server.invoke("m", 60)
    assert answer.status_code == 504
    assert "did not answer within 1 s" in answer.json()["message"]
    assert server.invoke("m", 0).status_code == 200


def test_queue_over_its_length_is_refused_with_retry_after(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, queue_length=2)
    server.load("m", code_model(tmp_path / "m", SLEEPER))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.invoke, "m", 0.7) for _ in range(2)]
        wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 2)
        refused = server.invoke("m", 0)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_killed_zygote_is_replaced_when_needed_and_its_hosts_live_on(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("a", scale_model(tmp_path / "a"))
    (zygote,) = psutil.Process(server.process.pid).children()
    (host,) = zygote.children()
    zygote.kill()
    wait_until(lambda: not alive([zygote]))
    assert server.invoke("a", [[1, 1, 1]]).status_code == 200
    assert server.load("own", code_model(tmp_path / "own", SLEEPER)).status_code == 200
    assert alive([host])
    host.kill()
    wait_until(lambda: server.invoke("a", [[1, 1, 1]]).status_code == 200)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "computing"])
def test_killed_front_door_leaves_nothing_running(start_server: Servers, tmp_path: Path, busy: bool) -> None:
    server = start_server(tmp_path)
    server.load("m", code_model(tmp_path / "m", SLEEPER))
    family = server.family()
    assert len(family) == 2
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if busy:
            answer = pool.submit(server.invoke, "m", 30)
            wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 1)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not alive(family))
        assert not busy or answer.exception() is not None


def test_sigterm_drains_and_exits_0(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("m", code_model(tmp_path / "m", SLEEPER))
    family = server.family()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.invoke, "m", 1)
        wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 1)
        assert server.stop() == 0
        assert answer.result().status_code == 200
        assert answer.result().headers["connection"] == "close"
    wait_until(lambda: not alive(family))


def test_sigint_does_the_same(start_server: Servers, tmp_path: Path) -> None:
    assert start_server(tmp_path).stop(signal.SIGINT) == 0


def test_single_model_is_ready_only_when_loaded(start_server: Servers, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    folder = code_model(
        tmp_path / "model",
        "import os, time\n"
        "def model_fn(model_dir):\n"
        f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "def transform_fn(model, body, content_type, accept): return body, accept\n",
    )
    server = start_server(folder, "single", healthy=False)
    wait_until(lambda: server.ping_status() == 503, 20)
    gate.touch()
    server.wait_until_healthy()
    assert server.client.post("/invocations", content=b"[]").status_code == 200


def test_single_model_that_does_not_load_ends_the_server_with_1(start_server: Servers, tmp_path: Path) -> None:
    folder = code_model(tmp_path / "model", "def model_fn(model_dir): raise ValueError('no weights')\n")
    server = start_server(folder, "single", healthy=False)
    assert server.process.wait(30) == 1
    assert "The model cannot be served" in server.log.read_text()


def test_port_in_use_is_told_and_nothing_is_started(start_server: Servers, tmp_path: Path) -> None:
    import subprocess
    import sys

    server = start_server(tmp_path)
    command = [str(Path(sys.executable).parent / "serve"), "--repository", str(tmp_path), "--port", str(server.port)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1
    assert f"Port {server.port} on 127.0.0.1 is already in use" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.client.get("/ping").status_code == 200


def test_repository_loads_on_first_request_and_the_least_used_makes_room(start_server: Servers, tmp_path: Path) -> None:
    size = 1 << 20  # floats, so 4 MiB, of which a session takes at least as much
    for name in ("a", "b", "c"):
        scale_model(tmp_path / name, padding_floats=size)
    server = start_server(tmp_path, "repository", eviction="lru", budget=14 << 20)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert server.invoke(name, [[1, 2, 3]]).json() == [[2, 4, 6]]
    assert len(server.client.get("/models").json()["models"]) < 3
    assert server.invoke("nobody", []).status_code == 404


def test_many_first_requests_load_a_model_once(start_server: Servers, tmp_path: Path) -> None:
    code_model(
        tmp_path / "m",
        "import os\n"
        "def model_fn(model_dir):\n"
        "    open(os.path.join(model_dir, 'loads'), 'a').write('x')\n"
        "def transform_fn(model, body, content_type, accept): return body, accept\n",
    )
    server = start_server(tmp_path, "repository")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.invoke("m", []).status_code, range(8)))
    assert answers == [200] * 8
    assert (tmp_path / "m/loads").read_text() == "x"


def test_unload_gives_the_memory_back(start_server: Servers, tmp_path: Path) -> None:
    """Twenty rounds of a 40 MB model leave the host no larger than one did."""
    server = start_server(tmp_path)
    server.load("stays", scale_model(tmp_path / "stays"))
    big = scale_model(tmp_path / "big", padding_floats=10 << 20)
    sizes = []
    for _ in range(6):
        assert server.load("big", big).status_code == 200
        assert server.invoke("big", [[1, 1, 1]]).status_code == 200
        assert server.client.delete("/models/big").status_code == 200
        # Of its hosts, for another may be making the form of the large model that is mapped.
        (pid,) = server.client.get("/models/stays").json()["hosts"]
        sizes.append(psutil.Process(pid).memory_info().rss)
    assert max(sizes[1:]) - sizes[0] < 8 << 20


def test_errors_name_no_path_of_the_server(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    server.load("m", code_model(tmp_path / "m", SLEEPER))
    answer = server.invoke("m", "not a number")
    assert answer.status_code == 500
    text = json.dumps(answer.json())
    assert str(tmp_path) not in text
    assert "Traceback" not in text
    assert os.sep + "inference.py" not in text
    assert "could not convert string" in server.log.read_text()


def test_host_that_cannot_be_reached_is_tried_again(start_server: Servers, tmp_path: Path) -> None:
    """Its process is there, but no descriptor is left for the connection to it."""
    server = start_server(tmp_path)
    assert server.load("m", code_model(tmp_path / "m", SLEEPER)).status_code == 200
    process = psutil.Process(server.process.pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (1, before[1]))  # what is open stays open; nothing more can be
    os.kill(server.client.get("/models/m").json()["hosts"][0], signal.SIGKILL)
    wait_until(lambda: "could not be reached" in server.log.read_text() or "did not load" in server.log.read_text())
    process.rlimit(psutil.RLIMIT_NOFILE, before)
    wait_until(lambda: server.client.get("/models/m").json()["status"] == "ready", 30)
    assert server.invoke("m", 0).status_code == 200
    (pid,) = server.client.get("/models/m").json()["hosts"]
    wait_until(lambda: [host.pid for host in alive(server.hosts())] == [pid])
    assert server.client.delete("/models/m").status_code == 200
    assert server.invoke("m", 0).status_code == 404


def test_body_that_is_gone_when_its_host_comes_to_it_costs_nobody_else(start_server: Servers, tmp_path: Path) -> None:
    """The request was given up while it lay unread behind others, and the file that held its body deleted."""
    server = start_server(tmp_path, response_seconds=1.0, spool_bytes=64_000)
    assert server.load("m", code_model(tmp_path / "m", SLEEPER)).status_code == 200
    (pid,) = server.client.get("/models/m").json()["hosts"]
    padding = " " * 60_000
    with concurrent.futures.ThreadPoolExecutor(21) as pool:

        def ask(body: str) -> int:
            with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
                return client.post("/models/m/invoke", content=body).status_code

        answers = [pool.submit(ask, "0.4" + padding) for _ in range(20)]
        wait_until(lambda: server.client.get("/models/m").json()["inFlight"] == 20)
        assert ask("0.4" + 2 * padding) == 504
        assert {answer.result() for answer in answers} == {200, 504}
    wait_until(lambda: server.invoke("m", 0).status_code == 200)
    assert server.client.get("/models/m").json()["hosts"] == [pid]


def test_host_is_given_the_time_of_the_slowest_of_its_models(start_server: Servers, tmp_path: Path) -> None:
    """A request that waits behind another model's is late without anything being wrong with their process."""
    server = start_server(tmp_path, shared_hosts=1)
    hurried = scale_model(tmp_path / "hurried")
    (hurried / "mooring.toml").write_text("response_seconds = 0.1\n")
    assert server.load("hurried", hurried).status_code == 200
    assert server.load("slow", slow_model(tmp_path / "slow", draws=100_000_000)).status_code == 200
    (pid,) = server.client.get("/models/hurried").json()["hosts"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool, server.new_client() as client:
        slow = pool.submit(client.post, "/models/slow/invoke", content=b"[[1, 2, 3]]")
        wait_until(lambda: server.client.get("/models/slow").json()["inFlight"] == 1)
        assert server.invoke("hurried", [[1, 2, 3]]).status_code == 504
        assert slow.result().status_code == 200
    assert server.invoke("hurried", [[1, 2, 3]]).status_code == 200
    for name in ("hurried", "slow"):
        described = server.client.get(f"/models/{name}").json()
        assert (described["hosts"], described["deaths"]) == ([pid], 0)


def test_zygote_that_cannot_be_started_is_tried_again(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    code = code_model(tmp_path / "m", SLEEPER)
    process = psutil.Process(server.process.pid)
    (zygote,) = process.children()
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    assert server.client.get("/ping").status_code == 200
    process.rlimit(psutil.RLIMIT_NOFILE, (1, before[1]))
    zygote.kill()
    wait_until(lambda: "zygote cannot be started" in server.log.read_text())
    process.rlimit(psutil.RLIMIT_NOFILE, before)
    assert server.load("m", code).status_code == 200
    assert server.invoke("m", 0).status_code == 200


def test_loader_that_hangs_ends_its_host_whatever_else_waits_for_it(start_server: Servers, tmp_path: Path) -> None:
    """The next load finds another, though an unload was asked of the one that hung, too."""
    server = start_server(tmp_path, load_seconds=3.0, shared_hosts=1)
    for name in ("stays", "goes"):
        assert server.load(name, scale_model(tmp_path / name)).status_code == 200
    (host,) = (psutil.Process(pid) for pid in server.client.get("/models/stays").json()["hosts"])
    host.suspend()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, server.new_client() as client:
        going = pool.submit(client.delete, "/models/goes")
        wait_until(lambda: server.client.get("/models/goes").json().get("status") == "draining")
        assert server.load("new", scale_model(tmp_path / "new")).status_code == 500
        assert going.result().status_code == 200
    wait_until(lambda: not alive([host]))
    assert server.load("new", scale_model(tmp_path / "new")).status_code == 200
    assert server.invoke("stays", [[1, 2, 3]]).status_code == 200
