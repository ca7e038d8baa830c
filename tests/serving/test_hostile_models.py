"""Models whose code does harm, or whose files do: they pay for it themselves, and their neighbours lose nothing."""

import concurrent.futures
import json
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from disks import can_mount, small_disk
from models import code_model, quotient_model, scale_model
from servers import RunningServer, Servers, alive, wait_until, working_beside

from benchmarks.memory_limits import can_limit_memory, memory_limit

MIB = 1 << 20
# Runs what its request says.
RUNS = (
    "import ctypes, os, re, signal, subprocess, sys, time\n"
    "kept = []\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    names = dict(globals())\n"
    "    exec(body, names)\n"
    "    return str(names.get('answer', os.getpid())), accept\n"
)
# Ends its process when its request says so.
DIES = (
    "import os, signal\n"
    "def model_fn(model_dir): return None\n"
    "def transform_fn(model, body, content_type, accept):\n"
    "    os.kill(os.getpid(), signal.SIGSEGV)\n"
)


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    server = start_server(root, response_seconds=20.0)
    assert server.load("neighbour", scale_model(root / "neighbour")).status_code == 200
    return server


@pytest.fixture
def hostile(server: RunningServer, root: Path) -> Iterator[str]:
    """A model that runs what it is told, and is gone after the test with all it has started."""
    others = {process.pid for process in server.family()}
    assert server.load("hostile", code_model(root / "hostile", RUNS)).status_code == 200
    yield "hostile"
    assert server.client.delete("/models/hostile").status_code == 200
    wait_until(lambda: {process.pid for process in server.family()} <= others)
    assert server.invoke("neighbour", [[1, 2, 3]]).json() == [[2, 4, 6]]


def run(server: RunningServer, code: str) -> httpx.Response:
    return server.client.post("/models/hostile/invoke", content=code, headers={"content-type": "text/plain"})


@contextmanager
def traffic(server: RunningServer, names: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """Invoke models in turn from four threads while the block runs; the answers are complete after it."""
    answers: list[tuple[int, str]] = []

    def send(place: int, is_over: threading.Event) -> None:
        with httpx.Client(base_url=str(server.client.base_url), timeout=60) as client:
            index = place * len(names) // 4
            while not is_over.is_set():
                index += 1
                answer = client.post(f"/models/{names[index % len(names)]}/invoke", content=b"[[1, 2, 3]]")
                answers.append((answer.status_code, answer.text))

    with working_beside(send, 4):
        wait_until(lambda: answers)
        yield answers


# --- what code does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "ctypes.string_at(0)",
        "os._exit(0)",
        "os._exit(3)",
        "sys.exit()",
        "raise KeyboardInterrupt",
        "os.closerange(3, 65536)",
        "os.kill(0, signal.SIGKILL)",
        "os.abort()",
    ],
)
@pytest.mark.usefixtures("hostile")
def test_code_that_ends_its_process_is_told_and_ends_nothing_else(server: RunningServer, code: str) -> None:
    with traffic(server, ["neighbour"]) as answers:
        assert run(server, code).status_code in (500, 507)
        assert run(server, "answer = 7").json() == 7
    assert {status for status, _ in answers} == {200}
    assert server.process.poll() is None


@pytest.mark.usefixtures("hostile")
def test_code_that_forks_is_answered_once_by_the_process_that_was_asked(server: RunningServer) -> None:
    """A copy of a host must neither answer nor take the requests that come after."""
    pids = {run(server, "os.fork()").text for _ in range(20)}
    assert len(pids) == 1
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        codes = [f"os.fork(); answer = {number}" for number in range(40)]
        assert [answer.json() for answer in pool.map(lambda code: run(server, code), codes)] == list(range(40))


@pytest.mark.parametrize(
    "code",
    [
        "answer = os.fork()\nwhile not answer: time.sleep(1)",
        "answer = subprocess.Popen(['sleep', '1000']).pid",
        "import multiprocessing; p = multiprocessing.get_context('fork').Process(target=time.sleep, args=(1000,)); "
        "p.start(); answer = p.pid",
    ],
    ids=["fork", "subprocess", "multiprocessing"],
)
@pytest.mark.usefixtures("hostile")
def test_what_code_has_started_ends_with_its_process(server: RunningServer, code: str) -> None:
    """And does not hide that process's death by holding its sockets open."""
    child = psutil.Process(run(server, code).json())
    own = psutil.Process(run(server, "answer = os.getpid()").json())
    assert child.ppid() == own.pid
    own.kill()
    wait_until(lambda: not alive([child]))
    assert run(server, "answer = 7").json() == 7


@pytest.mark.usefixtures("hostile")
def test_code_that_hangs_without_giving_others_a_turn_is_replaced(start_server: Servers, tmp_path: Path) -> None:
    """An expression that takes for ever holds the interpreter: nothing inside the process can end it."""
    server = start_server(tmp_path, response_seconds=1.0)
    server.load("hostile", code_model(tmp_path / "hostile", RUNS))
    assert run(server, "re.match('(a+)+$', 'a' * 64 + 'b')").status_code == 504
    assert run(server, "answer = 7").json() == 7


@pytest.mark.usefixtures("hostile")
def test_hundred_megabytes_on_standard_output_hold_nobody_up(server: RunningServer) -> None:
    with traffic(server, ["neighbour"]) as answers:
        code = "for _ in range(100): print('x' * (1 << 20))\nsys.stderr.write('y' * (1 << 20))\nanswer = 7"
        assert run(server, code).json() == 7
    assert {status for status, _ in answers} == {200}
    server.log.write_text("")


@pytest.mark.usefixtures("hostile")
def test_code_that_opens_files_without_end_is_told(server: RunningServer) -> None:
    answer = run(server, "for _ in range(2_000_000): kept.append(os.dup(0))")
    assert answer.status_code == 500
    assert "OSError" in answer.text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not can_limit_memory(), reason="may not make control groups here")
def test_code_that_eats_all_memory_is_507_and_its_neighbours_live(start_server: Servers, tmp_path: Path) -> None:
    with memory_limit(704 * MIB) as command:
        server = start_server(tmp_path, command=command)
        server.load("neighbour", scale_model(tmp_path / "neighbour"))
        server.load("hostile", code_model(tmp_path / "hostile", RUNS))
        with traffic(server, ["neighbour"]) as answers:
            assert run(server, "while True: kept.append(b'x' * (1 << 20))").status_code == 507
        assert {status for status, _ in answers} == {200}
        assert server.stop() == 0


# --- one among many ---------------------------------------------------------------------------------------------------


def kill_as_code(server: RunningServer, root: Path) -> None:
    server.load("killer", code_model(root / "killer", DIES))
    for _ in range(4):
        assert server.invoke("killer", []).status_code in (500, 503)


def kill_as_data(server: RunningServer, root: Path) -> None:
    server.load("killer", quotient_model(root / "killer"))
    assert server.invoke("killer", {"x": [[7]], "by": [[-1]]}).json() == [[-7]]
    for _ in range(4):
        answer = server.invoke("killer", {"x": [[-(2**31)]], "by": [[-1]]})
        assert answer.status_code in (500, 503)
        assert "SIGFPE" in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_as_code, kill_as_data])
def test_one_model_that_kills_its_host_each_time_costs_a_thousand_others_nothing(
    start_server: Servers, tmp_path: Path, kill: object
) -> None:
    """A death is laid to the request that was running, not to those that waited behind it."""
    server = start_server(tmp_path)
    names = [f"m{number}" for number in range(1000)]
    for name in names:
        assert server.load(name, scale_model(tmp_path / name)).status_code == 200
    assert callable(kill)
    with traffic(server, names) as answers:
        kill(server, tmp_path)
        assert server.client.get("/models/killer").json()["status"] == "failed"
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 100)
    assert {(status, json.loads(text)[0][0]) for status, text in answers} == {(200, 2.0)}
    described = [server.client.get(f"/models/{name}").json() for name in names]
    assert {(model["status"], model["deaths"]) for model in described} == {("ready", 0)}


# --- loading, unloading, replacing ------------------------------------------------------------------------------------


def test_loads_and_unloads_under_requests_leave_every_request_answered(server: RunningServer, root: Path) -> None:
    scale_model(root / "churned")
    with traffic(server, ["churned", "neighbour"]) as answers:
        for _ in range(5):
            assert server.load("churned", root / "churned").status_code == 200
            assert server.client.delete("/models/churned").status_code == 200
    assert {status for status, _ in answers} == {200, 404}
    assert all(json.loads(text) == [[2, 4, 6]] for status, text in answers if status == 200)


def test_racing_loads_and_unloads_of_one_model_end_in_a_state_that_works(server: RunningServer, root: Path) -> None:
    url = scale_model(root / "raced")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(server.load, "raced", url) for _ in range(20)]
        unloads = [pool.submit(server.client.delete, "/models/raced") for _ in range(20)]
    assert {load.result().status_code for load in loads} <= {200, 409}
    assert {unload.result().status_code for unload in unloads} <= {200, 404}
    server.client.delete("/models/raced")
    assert server.load("raced", url).status_code == 200
    assert server.invoke("raced", [[1, 2, 3]]).json() == [[2, 4, 6]]
    assert server.client.delete("/models/raced").status_code == 200


@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "archive"])
def test_model_replaced_on_disk_answers_as_before_until_it_is_loaded_again(
    start_server: Servers, tmp_path: Path, is_archive: bool
) -> None:
    root = tmp_path / "repository"
    server = start_server(root, "repository", eviction="reuse")

    def publish(factor: float) -> None:
        folder = scale_model(tmp_path / f"factor-{factor:g}", factor)
        if is_archive:
            with tarfile.open(root / "new.tar.gz", "w:gz") as tar:
                tar.add(folder, "")
            (root / "new.tar.gz").rename(root / "m.tar.gz")
        else:
            shutil.copytree(folder, root / "m", dirs_exist_ok=True)

    root.mkdir()
    publish(2)
    assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
    publish(3)
    assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
    assert server.client.post("/v2/repository/models/m/load").status_code == 200
    assert server.invoke("m", [[1, 2, 3]]).json() == [[3, 6, 9]]


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_full_disk_is_told_and_the_server_lives(start_server: Servers, tmp_path: Path) -> None:
    """Bodies that are kept in files and archives that are unpacked: neither fits, and neither leaves anything."""
    if not can_mount(tmp_path / "disk"):
        pytest.skip("may not mount a file system here")
    root = tmp_path / "models"
    scale_model(root / "m")
    with tarfile.open(root / "big.tar", "w") as tar:
        tar.add(scale_model(tmp_path / "big", padding_floats=MIB), "")
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        server = start_server(root, spool_bytes=100_000, variables={"TMPDIR": str(disk)})
        assert server.load("m", root / "m").status_code == 200
        free = shutil.disk_usage(disk).free
        body = b"[[1, 2, 3]]".ljust(3 * MIB)
        for lane in ("", "?ordinary"):
            refused = server.client.post(f"/models/m/invoke{lane}", content=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "No space left on device" in refused.json()["message"]
        refused = server.load("big", root / "big.tar")
        assert refused.status_code == 503
        assert "No space left on device" in refused.json()["message"]
        assert str(disk) not in refused.text
        wait_until(lambda: shutil.disk_usage(disk).free == free)
        (disk / "full").write_bytes(b"x" * free)
        assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
        assert server.load("own", code_model(root / "own", RUNS)).status_code == 200
        os.kill(server.client.get("/models/m").json()["hosts"][0], signal.SIGKILL)
        assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
        (disk / "full").unlink()
        assert server.load("big", root / "big.tar").status_code == 503
        assert server.stop() == 0


@pytest.mark.parametrize(("name", "content"), [("config.json", "[" * 200_000), ("mooring.toml", "a = " + "[" * 5000)])
def test_file_that_is_nested_too_deeply_fails_its_model_and_nobody_waits_for_ever(
    start_server: Servers, tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_text(content)
    server = start_server(tmp_path, "repository", eviction="lru", constants={"on_demand.FAILURE_MEMORY_S": 0.0})
    answer = server.invoke("m", [[1, 2, 3]])
    assert answer.status_code >= 400
    assert "Traceback" not in answer.text
    (folder / name).unlink()
    scale_model(folder)
    assert server.invoke("m", [[1, 2, 3]]).json() == [[2, 4, 6]]
