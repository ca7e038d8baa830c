"""Batch transform against real servers: what arrives, in which order, and what is left when something fails."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, Servers, alive, wait_until

from mooring.serving.model_client import AddressError, ModelClient, UnreachableServerError
from mooring.serving.records import Split, Strategy
from mooring.serving.transform import Pace, Progress, TransformTerms, find_tasks, pace_of, transform

COMMAND = str(Path(sys.executable).parent / "mooring")
LINES = TransformTerms(split=Split.LINE, ends_lines=True, accept="text/csv", retries=0)


def do(source: Path, output: Path, url: str, terms: TransformTerms) -> Progress:
    tasks, _ = find_tasks(source, output, overwrite=False)
    with ModelClient(url, 20.0) as client:
        return transform(tasks, client, terms, lambda _: None)


def pace_at(url: str) -> Pace:
    with ModelClient(url, 20.0) as client:
        return pace_of(client)


def rows(count: int, first: int = 0) -> str:
    return "".join(f"{number},{number},{number}\n" for number in range(first, first + count))


def doubled(count: int, first: int = 0) -> str:
    return "".join(f"{2.0 * number},{2.0 * number},{2.0 * number}\n" for number in range(first, first + count))


@pytest.fixture(scope="module")
def server(start_server: Servers, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    return start_server(scale_model(tmp_path_factory.mktemp("scale") / "model"), "single")


@pytest.fixture
def url(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_answers_keep_the_order_and_the_folders_of_records(
    tmp_path: Path, url: str, strategy: Strategy, concurrency: int
) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for index, name in enumerate(["a.csv", "b.csv", "deep/c.csv", "deep/empty.csv"]):
        (tmp_path / "in" / name).write_text(rows(0 if "empty" in name else 100, first=100 * index))
    terms = TransformTerms(
        split=Split.LINE, ends_lines=True, accept="text/csv", pace=Pace(concurrency, strategy, most_bytes=200)
    )
    progress = do(tmp_path / "in", tmp_path / "out", url, terms)
    assert progress.failures == []
    assert progress.bytes == progress.bytes_total
    found = {str(path.relative_to(tmp_path / "out")): path.read_text() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {
        "a.csv.out": doubled(100),
        "b.csv.out": doubled(100, 100),
        "deep/c.csv.out": doubled(100, 200),
        "deep/empty.csv.out": "",
    }


def test_whole_files_are_sent_by_their_suffixes(tmp_path: Path, url: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_text("[[1,2,3]]")
    (tmp_path / "in/b.csv").write_text("1,2,3\n")
    (tmp_path / "in/.hidden").write_text("")
    assert do(tmp_path / "in", tmp_path / "out", url, TransformTerms()).failures == []
    assert [path.read_text() for path in sorted((tmp_path / "out").iterdir())] == ["[[2.0,4.0,6.0]]"] * 2


def test_failed_record_fails_its_file_and_no_other(tmp_path: Path, url: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.csv").write_text(rows(50) + "1,x,3\n" + rows(50))
    (tmp_path / "in/good.csv").write_text(rows(3))
    (tmp_path / "in/long.csv").write_text(rows(3) + "9" * 300 + "\n")
    pace = Pace(2, Strategy.SINGLE, 200)
    progress = do(
        tmp_path / "in", tmp_path / "out", url, TransformTerms(split=Split.LINE, accept="text/csv", pace=pace)
    )
    bad, long = progress.failures
    assert bad.startswith("bad.csv, record 51: the server answered 400: The body cannot be read as text/csv: line 1")
    assert long == "long.csv, record 4: it has at least 201 bytes, over the limit of 200; raise --max-payload-mb"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.csv.out"]
    assert progress.bytes == progress.bytes_total


def test_file_that_has_an_output_is_not_done_again(tmp_path: Path, url: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text(rows(1))
    (tmp_path / "in/b.csv").write_text(rows(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.csv.out").write_text("done before")
    tasks, skipped = find_tasks(tmp_path / "in", tmp_path / "out", overwrite=False)
    assert ([task.name for task in tasks], skipped) == (["b.csv"], 1)
    assert len(find_tasks(tmp_path / "in", tmp_path / "out", overwrite=True)[0]) == 2


def test_output_folder_inside_the_input_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.csv.out").write_text("")
    assert [task.name for task in find_tasks(tmp_path, tmp_path / "out", overwrite=True)[0]] == ["a.csv"]


@pytest.mark.parametrize("output", [".", "..", "../elsewhere"])
def test_folder_is_done_once_wherever_its_outputs_go(tmp_path: Path, url: str, output: str) -> None:
    source = tmp_path / "in"
    (source / "in").mkdir(parents=True)
    for name in ("a.csv", "in/b.csv"):
        (source / name).write_text(rows(1))
    assert do(source, source / output, url, LINES).failures == []
    assert sorted(path.name for path in tmp_path.rglob("*.out")) == ["a.csv.out", "b.csv.out"]
    tasks, skipped = find_tasks(source, source / output, overwrite=False)
    assert (tasks, skipped) == ([], 2)


def test_server_says_how_fast_it_is_asked(url: str, start_server: Servers, tmp_path: Path) -> None:
    asked, given = pace_at(url), httpx.get(f"{url}/execution-parameters").json()
    assert asked == Pace(given["MaxConcurrentTransforms"], Strategy.MULTI, given["MaxPayloadInMB"] << 20)
    many = start_server(tmp_path)
    assert pace_at(f"http://127.0.0.1:{many.port}") == Pace()


def test_model_among_many_is_sent_records_at_its_path(start_server: Servers, tmp_path: Path) -> None:
    many = start_server(tmp_path)
    assert many.load("scale", scale_model(tmp_path / "model")).is_success
    (tmp_path / "a.csv").write_text(rows(3))
    url = f"http://127.0.0.1:{many.port}/models/scale/invoke"
    assert do(tmp_path / "a.csv", tmp_path / "out", url, LINES).failures == []
    assert (tmp_path / "out/a.csv.out").read_text() == doubled(3)


Script = Callable[[int, bytes], tuple[int, dict[str, str], bytes] | None]


@contextmanager
def scripted(script: Script) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers its requests as a script says, None by hanging up; gives its URL and what it was sent."""
    bodies: list[bytes] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                bodies.append(body)
                made = script(len(bodies) - 1, body)
            if made is None:
                self.close_connection = True
                return
            status, headers, answer = made
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_busy_fails_or_breaks_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1\n")
    answers: list[tuple[int, dict[str, str], bytes] | None] = [(503, {}, b"busy"), None, (200, {}, b"one")]
    with scripted(lambda index, _: answers[index]) as (url, bodies):
        terms = TransformTerms(split=Split.LINE, retries=2)
        assert do(tmp_path / "a.csv", tmp_path / "out", url, terms).failures == []
    assert bodies == [b"1\n"] * 3
    assert (tmp_path / "out/a.csv.out").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("answer", "retries", "requests", "problem"),
    [
        ((429, {}, b'{"message": "slow down"}'), 1, 2, "the server answered 429: slow down"),
        ((400, {}, b'{"error": "bad"}'), 3, 1, "the server answered 400: bad"),
        ((500, {}, b""), 0, 1, "the server answered 500: (nothing)"),
        ((404, {}, b"<html>"), 3, 1, "the server answered 404: <html>"),
        (None, 0, 1, "the connection broke: Remote end closed connection without response"),
    ],
)
def test_retries_have_an_end_and_the_last_answer_is_told(
    tmp_path: Path, answer: tuple[int, dict[str, str], bytes] | None, retries: int, requests: int, problem: str
) -> None:
    (tmp_path / "a.csv").write_text("1\n")
    with scripted(lambda *_: answer) as (url, bodies):
        progress = do(tmp_path / "a.csv", tmp_path / "out", url, TransformTerms(split=Split.LINE, retries=retries))
    assert progress.failures == [f"a.csv, record 1: {problem}"]
    assert len(bodies) == requests
    assert list((tmp_path / "out").iterdir()) == []


def test_connection_that_was_closed_while_idle_costs_no_retry(tmp_path: Path) -> None:
    """The answer promises to keep the connection, and the server hangs up on its next request."""
    (tmp_path / "a.csv").write_text("1\n2\n")
    with scripted(lambda index, body: None if index == 1 else (200, {}, body)) as (url, bodies):
        pace = Pace(1, Strategy.SINGLE)
        terms = TransformTerms(split=Split.LINE, retries=0, ends_lines=True, pace=pace)
        assert do(tmp_path / "a.csv", tmp_path / "out", url, terms).failures == []
    assert bodies == [b"1", b"2", b"2"]
    assert (tmp_path / "out/a.csv.out").read_text() == "1\n2\n"


def test_failing_file_is_not_sent_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows(1000))
    with scripted(lambda *_: (400, {}, b"no")) as (url, bodies):
        terms = TransformTerms(split=Split.LINE, retries=0, pace=Pace(2, Strategy.SINGLE))
        assert len(do(tmp_path / "a.csv", tmp_path / "out", url, terms).failures) == 1
    assert len(bodies) < 20


def test_refusal_before_the_body_is_taken_is_told(start_server: Servers, tmp_path: Path) -> None:
    small = start_server(scale_model(tmp_path / "model"), "single", max_body_bytes=1000)
    (tmp_path / "a.npy").write_bytes(bytes(20_000_000))
    terms = TransformTerms(retries=0, pace=Pace(most_bytes=0))
    progress = do(tmp_path / "a.npy", tmp_path / "out", f"http://127.0.0.1:{small.port}", terms)
    assert progress.failures[0].startswith("a.npy, record 1: the server answered 413")


def test_nobody_at_the_address_ends_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1\n")
    with scripted(lambda *_: None) as (url, _):
        pass
    with pytest.raises(UnreachableServerError, match=r"No server can be reached at http://127\.0\.0\.1:\d+: "):
        do(tmp_path / "a.csv", tmp_path / "out", url, LINES)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "http://a:b", "http://[::1"])
def test_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(AddressError, match="expected one like"):
        ModelClient(url, 1.0)


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "transform", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_command_serves_the_model_for_as_long_as_it_takes(tmp_path: Path) -> None:
    model = scale_model(tmp_path / "model")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text(rows(100))
    arguments = ("--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--split", "line")
    done = call(*arguments, "--accept", "text/csv", "--strategy", "single", "--assemble", "line", "--concurrency", "3")
    assert done.returncode == 0, done.stderr
    assert "1 files done, 0 failed: 100 requests" in done.stderr
    assert (tmp_path / "out/a.csv.out").read_text() == doubled(100)
    (tmp_path / "in/b.csv").write_text("no numbers\n")
    again = call(*arguments)
    assert again.returncode == 1
    assert "1 files have their outputs already" in again.stderr
    assert "failed: b.csv, record 1: the server answered 400" in again.stderr


@pytest.mark.parametrize("megabytes", ["0", "30"])
def test_command_serves_the_model_for_payloads_as_large_as_it_is_told(tmp_path: Path, megabytes: str) -> None:
    model = code_model(
        tmp_path / "model",
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept): return str(len(body)), 'text/plain'\n",
    )
    (tmp_path / "a.bin").write_bytes(bytes(30 << 20))
    arguments = ("--model", model, "--input", tmp_path / "a.bin", "--output", tmp_path / "out", "--retries", "0")
    done = call(*arguments, "--max-payload-mb", megabytes)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/a.bin.out").read_text() == str(30 << 20)


def test_model_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.onnx").write_text("no model")
    (tmp_path / "a.csv").write_text("1\n")
    done = call("--model", tmp_path / "model", "--input", tmp_path / "a.csv", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "cannot be served; the lines above say why" in done.stderr
    assert "model.onnx cannot be loaded" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "/no/such", "--output", "o", "--url", "http://a"], "--input: there is nothing at /no/such"),
        (["--input", "/", "--output", "o"], "one of the arguments --model --url is required"),
        (["--input", "/", "--output", "o", "--url", "http://a", "--concurrency", "0"], '"0" is not a whole number'),
        (["--input", "/", "--output", "o", "--url", "http://a", "--max-payload-mb", "nan"], '"nan" is not a number'),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], words: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_help_teaches_with_an_example() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert all(words in done.stdout for words in ("example: mooring transform --model", "exit codes: 0"))


SLOW = """
import time
from pathlib import Path
def model_fn(model_dir):
    return Path(model_dir)
def transform_fn(model, body, content_type, accept):
    (model / "asked").touch()
    time.sleep(0.1 if "quick" in body else 60)
    return body, "text/csv"
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted_job_leaves_no_process_and_no_half_file_and_goes_on_later(
    tmp_path: Path, number: signal.Signals
) -> None:
    model = code_model(tmp_path / "model", SLOW)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("quick\n")
    (tmp_path / "in/b.csv").write_text("quick\nslow\n")
    arguments = ["--model", model, "--input", tmp_path / "in", "--output", tmp_path / "out", "--split", "line"]
    arguments += ["--strategy", "single"]
    with subprocess.Popen([COMMAND, "transform", *map(str, arguments)], stderr=subprocess.DEVNULL) as process:
        family = psutil.Process(process.pid)
        wait_until(lambda: (tmp_path / "out/a.csv.out").exists() and len(family.children(recursive=True)) > 1, 30)
        children = family.children(recursive=True)
        process.send_signal(number)
        code = process.wait(10)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    wait_until(lambda: not alive(children), 20)
    finished = [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert finished == ["a.csv.out"]
    if number != signal.SIGKILL:
        assert len(list((tmp_path / "out").iterdir())) == 1
