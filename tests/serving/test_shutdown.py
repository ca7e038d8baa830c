"""The end of a server: what is under way is answered, nothing new is taken, nothing stays behind."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from models import code_model
from servers import RunningServer, Servers, alive, read_all, wait_until

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="this machine lets us make no process namespaces",
)
# Answers when a file appears in its folder; may leave a grandchild behind, whose parent is then process 1.
CODE = """
import os, pathlib, time
def model_fn(model_dir): return pathlib.Path(model_dir)
def transform_fn(folder, body, content_type, accept):
    if "orphan" in body:
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.2)
            os._exit(0)
        os.waitpid(child, 0)
    (folder / "begun").touch()
    while "wait" in body and not (folder / "go").exists(): time.sleep(0.005)
    return "done", "text/plain"
"""


def first_process(server: RunningServer, prefix: tuple[str, ...]) -> psutil.Process:
    outer = psutil.Process(server.process.pid)
    return outer.children()[0] if prefix else outer


@pytest.mark.parametrize("prefix", [(), pytest.param(UNSHARE, marks=needs_namespaces)], ids=["process", "process 1"])
def test_sigterm_answers_what_is_under_way_takes_nothing_new_and_leaves_nothing(
    start_server: Servers, tmp_path: Path, prefix: tuple[str, ...]
) -> None:
    server = start_server(tmp_path, command=prefix)
    folder = code_model(tmp_path / "m", CODE)
    assert server.load("m", folder).status_code == 200
    process = first_process(server, prefix)
    family = [process, *process.children(recursive=True)]
    body = json.dumps("wait").encode()
    with server.connect() as idle, server.connect() as busy:
        busy.sendall(b"POST /models/m/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        wait_until((folder / "begun").exists)
        process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""  # a connection without a request is closed
        wait_until(lambda: is_refused(server))
        (folder / "go").touch()
        answer = read_all(busy)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert answer.endswith(b"done")
    assert server.process.wait(30) == 0
    wait_until(lambda: not alive(family))


def is_refused(server: RunningServer) -> bool:
    try:
        server.connect().close()
    except (TimeoutError, ConnectionRefusedError):
        return True
    return False


@needs_namespaces
def test_process_1_reaps_what_handlers_leave_behind(start_server: Servers, tmp_path: Path) -> None:
    server = start_server(tmp_path, command=UNSHARE)
    assert server.load("m", code_model(tmp_path / "m", CODE)).status_code == 200
    process = first_process(server, UNSHARE)
    before = len(process.children(recursive=True))
    for _ in range(3):
        assert server.invoke("m", "orphan").text == "done"
    wait_until(lambda: len(process.children(recursive=True)) == before)
    assert server.invoke("m", "again").text == "done"
