"""Several processes speak HTTP for the front door: who gets which connection, and what becomes of it when one ends."""

import os
import signal
import socket
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, alive, read_all, wait_until, working_beside

from mooring.serving.front import SPARE_DESCRIPTORS
from mooring.serving.fronts import FRONT_BYTES

FRONTS = 2
REQUEST = (
    b"POST /models/%b/invoke HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
# Says that it has begun, and answers when a file appears.
WAITS = """
import pathlib, time
def model_fn(model_dir): return pathlib.Path(model_dir)
def predict_fn(data, folder):
    (folder / f"begun-{data}").touch()
    while not (folder / "go").exists(): time.sleep(0.005)
    return data
"""


@pytest.fixture
def server(start_server: Servers, tmp_path: Path) -> RunningServer:
    server = start_server(tmp_path, fronts=FRONTS)
    assert server.load("m", scale_model(tmp_path / "m")).status_code == 200
    return server


def fronts(server: RunningServer) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it may go between the two questions
            if "mooring.serving.front" in child.cmdline():
                found.append(child)
    return found


def held_by(process: psutil.Process, connections: list[socket.socket]) -> int:
    ours = {connection.getsockname() for connection in connections}
    return sum(tuple(known.raddr) in ours for known in process.net_connections("tcp") if known.raddr)


def request(value: object, name: str = "m") -> bytes:
    body = str(value).encode()
    return REQUEST % (name.encode(), len(body), body)


def sample(server: RunningServer, name: str) -> float:
    """A number of /metrics, asked on a connection of its own."""
    with httpx.Client(base_url=server.client.base_url) as client:
        lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_connections_are_given_to_each_front_in_its_turn(server: RunningServer) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(10)]
        for connection in connections:
            connection.sendall(request([[1, 2, 3]]))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert [held_by(process, connections) for process in fronts(server)] == [5, 5]


def test_killed_front_takes_its_own_connections_with_it_and_nothing_else(server: RunningServer, tmp_path: Path) -> None:
    """Its clients see that it is gone, the others' are answered, and another one takes its place."""
    folder = code_model(tmp_path / "waits", WAITS)
    assert server.load("waits", folder).status_code == 200
    victim, survivor = fronts(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(4)]
        for index, connection in enumerate(connections):
            connection.sendall(request(index, "waits"))
        wait_until(lambda: server.client.get("/models/waits").json()["inFlight"] == 4)
        of_victim = [connection for connection in connections if held_by(victim, [connection])]
        victim.kill()
        wait_until(lambda: not alive([victim]))
        (folder / "go").touch()
        assert len(of_victim) == 2
        for connection in connections:
            assert received(connection)[:12] == (b"" if connection in of_victim else b"HTTP/1.1 200")
    wait_until(lambda: sample(server, "mooring_fronts") == FRONTS)
    assert sample(server, "mooring_front_deaths_total") == 1
    assert survivor in fronts(server)
    with httpx.Client(base_url=server.client.base_url) as client:
        wait_until(lambda: client.get("/models/waits").json()["inFlight"] == 0)


def received(connection: socket.socket) -> bytes:
    """What came until there was an answer or the end."""
    with suppress(ConnectionResetError):
        return connection.recv(1000)
    return b""


def wait_for(statuses: Counter[int], count: int) -> None:
    """Wait for so many more answers."""
    before = statuses.total()
    wait_until(lambda: statuses.total() > before + count)


def test_front_door_answers_while_no_front_is_there(server: RunningServer) -> None:
    """All of them are killed again and again while clients ask: whoever connects anew is answered, always."""
    statuses: Counter[int] = Counter()

    def ask(_: int, is_over: threading.Event) -> None:
        while not is_over.is_set():
            with (
                httpx.Client(base_url=server.client.base_url, timeout=20) as client,
                suppress(httpx.TransportError),  # the connection belonged to one that was killed
            ):
                while not is_over.is_set():
                    answer = client.post("/models/m/invoke", content=b"[[1, 2, 3]]")
                    statuses[answer.status_code] += 1

    with working_beside(ask, 2):
        for deaths in (FRONTS, 2 * FRONTS, 3 * FRONTS):
            for process in fronts(server):
                process.kill()
            wait_for(statuses, 10)
            wait_until(lambda: sample(server, "mooring_fronts") == FRONTS, 30)
            assert sample(server, "mooring_front_deaths_total") == deaths
    assert set(statuses) == {200}


def test_front_that_is_told_to_end_answers_first_and_is_replaced(server: RunningServer, tmp_path: Path) -> None:
    folder = code_model(tmp_path / "waits", WAITS)
    assert server.load("waits", folder).status_code == 200
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(2)]
        for index, connection in enumerate(connections):
            connection.sendall(request(index, "waits"))
        wait_until(lambda: server.client.get("/models/waits").json()["inFlight"] == 2)
        told = fronts(server)
        for process in told:
            process.terminate()
        wait_until(lambda: server.log.read_text().count("SIGTERM received") == FRONTS)
        (folder / "go").touch()
        assert [read_all(connection)[:12] for connection in connections] == [b"HTTP/1.1 200"] * 2
    wait_until(lambda: not alive(told))
    wait_until(lambda: sample(server, "mooring_fronts") == FRONTS)


def test_front_that_is_told_to_end_takes_no_connection_that_it_will_not_answer(
    server: RunningServer, tmp_path: Path
) -> None:
    folder = code_model(tmp_path / "waits", WAITS)
    assert server.load("waits", folder).status_code == 200
    with server.connect() as busy:
        busy.sendall(request(1, "waits"))
        wait_until((folder / "begun-1").exists)
        (told,) = (process for process in fronts(server) if held_by(process, [busy]))
        told.terminate()
        wait_until(lambda: "SIGTERM received" in server.log.read_text())
        for _ in range(20 * FRONTS):
            assert b"HTTP/1.1 200" in ask_anew(server)
        (folder / "go").touch()
        assert read_all(busy)[:12] == b"HTTP/1.1 200"


def ask_anew(server: RunningServer) -> bytes:
    """Ask until a connection is not closed by a front that was about to end."""
    while True:
        with server.connect() as connection:
            connection.sendall(request([[1, 2, 3]]))
            if answer := received(connection):
                return answer


def test_front_that_stands_still_is_replaced(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, fronts=FRONTS, constants={"fronts.LOOK_S": 0.3})
    stopped, other = fronts(server)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(4)]
        wait_until(lambda: held_by(stopped, connections) + held_by(other, connections) == len(connections))
        of_stopped = [connection for connection in connections if held_by(stopped, [connection])]
        stopped.suspend()
        assert [received(connection) for connection in of_stopped] == [b"", b""]  # when it is ended
    assert "has not been heard of" in server.log.read_text()
    wait_until(lambda: sample(server, "mooring_front_deaths_total") == 1)
    wait_until(lambda: sample(server, "mooring_fronts") == FRONTS)
    assert other in fronts(server)


def test_killed_front_door_takes_its_fronts_with_it(server: RunningServer) -> None:
    family = server.family()
    assert len(fronts(server)) == FRONTS
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not alive(family))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_server_that_is_told_to_end_lets_every_front_answer(
    server: RunningServer, tmp_path: Path, number: signal.Signals
) -> None:
    """A Ctrl-C in a terminal goes to the whole process group; a SIGTERM to the first process alone."""
    folder = code_model(tmp_path / "waits", WAITS)
    assert server.load("waits", folder).status_code == 200
    family = server.family()
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(2 * FRONTS)]
        busy, idle = connections[:FRONTS], connections[FRONTS:]
        for index, connection in enumerate(busy):
            connection.sendall(request(index, "waits"))
        wait_until(lambda: server.client.get("/models/waits").json()["inFlight"] == FRONTS)
        server.process.send_signal(number)
        for process in fronts(server) if number is signal.SIGINT else []:
            assert os.getpgid(process.pid) == process.pid  # so that it is not in the group that a terminal signals
        assert [read_all(connection) for connection in idle] == [b""] * FRONTS  # each front has heard of it
        with pytest.raises(OSError, match="refused"):
            server.connect()
        (folder / "go").touch()
        answers = [read_all(connection) for connection in busy]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * FRONTS
    assert all(b"connection: close" in answer for answer in answers)
    assert server.process.wait(30) == 0
    wait_until(lambda: not alive(family))


def test_host_that_dies_costs_no_client_of_any_front_its_answer(server: RunningServer) -> None:
    statuses: Counter[int] = Counter()

    def ask(_: int, is_over: threading.Event) -> None:
        with httpx.Client(base_url=server.client.base_url, timeout=20) as client:
            while not is_over.is_set():
                statuses[client.post("/models/m/invoke", content=b"[[1, 2, 3]]").status_code] += 1

    with working_beside(ask, 4):
        for _ in range(2):
            (host,) = alive(server.hosts())
            host.kill()
            wait_for(statuses, 50)
    assert set(statuses) == {200}


def test_refusals_of_fronts_are_counted_with_those_of_the_front_door(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, fronts=FRONTS, max_body_bytes=100)
    for _ in range(4):
        with httpx.Client(base_url=server.client.base_url) as client:
            assert client.post("/models/m/invoke", content=b"x" * 200).status_code == 413
            assert client.post("/models/m/invoke", content=b"x").status_code == 404
    name = 'mooring_errors_total{error="%s",status="%d"}'
    wait_until(lambda: sample(server, name % ("RequestEntityTooLargeException", 413)) == 4)
    assert sample(server, name % ("ModelNotFoundException", 404)) == 4


def test_fronts_have_their_memory_from_what_models_may_have(server: RunningServer, start_server: Servers) -> None:
    alone = start_server(server.log.parent)
    budget = 'mooring_memory_bytes{what="budget"}'
    assert sample(alone, budget) - sample(server, budget) == FRONTS * FRONT_BYTES


def test_connections_wait_while_no_descriptor_is_left(server: RunningServer) -> None:
    process = psutil.Process(server.process.pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (1, before[1]))  # what is open stays open; nothing more can be
    with server.connect() as connection:
        connection.sendall(request([[1, 2, 3]]))
        wait_until(lambda: "No connection can be accepted" in server.log.read_text())
        process.rlimit(psutil.RLIMIT_NOFILE, before)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_front_that_cannot_be_started_is_tried_again(server: RunningServer) -> None:
    process = psutil.Process(server.process.pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (1, before[1]))
    fronts(server)[0].kill()
    wait_until(lambda: "No front can be started" in server.log.read_text())
    process.rlimit(psutil.RLIMIT_NOFILE, before)
    wait_until(lambda: sample(server, "mooring_fronts") == FRONTS)


def test_connections_of_the_front_door_do_not_wait_for_those_of_fronts_to_be_told(
    server: RunningServer, tmp_path: Path
) -> None:
    """All have the same 25 seconds from the signal on, whoever has taken them."""
    folder = code_model(tmp_path / "waits", WAITS)
    assert server.load("waits", folder).status_code == 200
    killed = fronts(server)
    for process in killed:
        process.kill()
    wait_until(lambda: not alive(killed))
    with server.connect() as own:
        wait_until(lambda: held_by(psutil.Process(server.process.pid), [own]) == 1)
        wait_until(lambda: sample(server, "mooring_fronts") == FRONTS)
        with server.connect() as busy:
            busy.sendall(request(1, "waits"))
            wait_until((folder / "begun-1").exists)
            server.process.send_signal(signal.SIGTERM)
            assert read_all(own) == b""
            (folder / "go").touch()
            assert read_all(busy)[:12] == b"HTTP/1.1 200"
    assert server.process.wait(30) == 0


def test_front_door_answers_what_fronts_that_stand_still_have_no_room_for(server: RunningServer) -> None:
    """What they have been given already they answer when they go on."""
    stopped = fronts(server)
    with ExitStack() as stack:
        for process in stopped:
            process.suspend()
        connections = [stack.enter_context(server.connect()) for _ in range(700)]
        for connection in connections:
            connection.sendall(request([[1, 2, 3]]))
        front_door = psutil.Process(server.process.pid)
        wait_until(lambda: held_by(front_door, connections) > 0)
        for process in stopped:
            process.resume()
        assert {received(connection)[:12] for connection in connections} == {b"HTTP/1.1 200"}


def test_more_connections_than_fronts_have_descriptors_for_wait_until_there_are_some(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start_server(tmp_path, fronts=FRONTS, command=("prlimit", f"--nofile={SPARE_DESCRIPTORS + 16}"))
    assert server.load("m", scale_model(tmp_path / "m")).status_code == 200
    count = 4 * 16 * FRONTS
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(request([[1, 2, 3]]).replace(b"host: x", b"host: x\r\nconnection: close"))
        assert [read_all(connection)[:12] for connection in connections] == [b"HTTP/1.1 200"] * count
    assert sample(server, "mooring_front_deaths_total") == 0


def test_heads_that_never_come_again_are_not_kept(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, fronts=FRONTS)
    assert server.load("m", scale_model(tmp_path / "m")).status_code == 200
    processes = [psutil.Process(server.process.pid), *server.family()]
    padding = "x" * 60_000
    sizes = []
    for index in range(600):
        if index % 300 == 0:
            sizes.append(sum(process.memory_info().rss for process in processes))
        assert server.invoke("m", [[1, 2, 3]], **{"x-padding": f"{index}{padding}"}).status_code == 200
    sizes.append(sum(process.memory_info().rss for process in processes))
    assert sizes[2] - sizes[1] < 8 << 20  # 300 heads, in the front door and in the host, are 36 MB
