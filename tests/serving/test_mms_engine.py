"""multi-model-server with our handlers inside, beside our own engine: the same folders, requests and answers."""

import functools
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from models import code_model, scale_model
from servers import RunningServer, wait_until

from mooring.contract.errors import SettingError
from mooring.serving.mms_config import MmsPlan, as_properties, plan
from mooring.serving.mms_engine import LARGEST_PORT, POLL_S, MissingEngineError, check_address, find_java, find_package
from mooring.serving.settings import Limits, Mode, ServerSettings

BIN = Path(sys.executable).parent
# Where `make` puts multi-model-server: beside the environment, whose `mms` is to be our stand-in.
PACKAGE = Path(sys.prefix) / "mms"

has_java = shutil.which("java") is not None
needs_engine = pytest.mark.skipif(
    not (has_java and PACKAGE.is_dir()),
    reason=f"multi-model-server is not installed in {PACKAGE}" if has_java else "there is no java on PATH",
)

ENGINES = ("mooring", "mms")
JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
NPY = {"content-type": "application/x-npy"}
MAX_BODY_BYTES = 200_000

FUNCTIONS = """
import numpy, sibling
def model_fn(model_dir, context): return sibling.FACTOR
def input_fn(body, content_type): return numpy.asarray([float(word) for word in body.split()])
def predict_fn(data, model): return data * model
def output_fn(prediction, accept): return " ".join(str(number) for number in prediction), "text/plain"
"""
TRANSFORM = """
import json
def model_fn(model_dir): return model_dir
def transform_fn(model, body, content_type, accept, context):
    told = json.loads(body)
    if told == "value": raise ValueError("a secret of the model")
    if told == "memory": raise MemoryError
    if told == "status":
        context.set_response_status(299, "", 0)
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "seen")
        return "fine", "text/plain"
    if told == "split": context.set_response_header(0, "x-evil", "1\\r\\nx-more: 2")
    if told == "large": return "x" * 8_000_000, "text/plain"
    seen = [context.get_request_header(0, name) for name in ("X-Trace", "X-Mooring-A", "Cookie")]
    return json.dumps([model, type(body).__name__, content_type, accept, *seen]), accept
"""
SERVICE = """
def handle(data, context):
    if data is None: return None
    context.set_response_content_type(0, "text/plain")
    return [repr([(name, bytes(value, "utf-8") if isinstance(value, str) else bytes(value))
        for name, value in sorted(data[0].items())])]
"""


def small_port() -> int:
    """A free port that multi-model-server takes for one; the system gives larger ones."""
    for port in random.sample(range(20_000, LARGEST_PORT), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def served(engine: str, folder: Path, *options: str, **variables: str) -> Iterator[RunningServer]:
    """Run the command `serve`, as the platform would start it."""
    port = small_port()
    log = folder / f"{engine}-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BIN / "serve"), "--engine", engine, "--port", str(port), *options],
            stdout=output,
            stderr=output,
            text=True,
            env=os.environ | {"PYTHONPATH": str(PACKAGE)} | variables,
        )
    server = RunningServer(process, port, log)
    try:
        yield server
    finally:
        server.client.close()
        if process.poll() is None:
            server.stop()


@dataclass(frozen=True)
class Both:
    """The two engines with the same models loaded."""

    servers: Mapping[str, RunningServer]

    def ask(self, ask: Callable[[httpx.Client], httpx.Response]) -> tuple[httpx.Response, httpx.Response]:
        ours, theirs = (ask(self.servers[engine].client) for engine in ENGINES)
        return ours, theirs

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str] = JSON) -> httpx.Response:
        """Ask both; they have to answer alike. Returns the answer."""
        ours, theirs = self.ask(lambda client: client.post(f"/models/{name}/invoke", content=body, headers=headers))
        assert (theirs.status_code, theirs.content) == (ours.status_code, ours.content)
        for header in ("content-type", "x-amzn-sagemaker-custom-attributes", "retry-after"):
            assert theirs.headers.get(header) == ours.headers.get(header)
        return theirs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ml")
    models = base / "models"
    scale_model(models / "onnx/model")
    scale_model(models / "wrapped/model/outer", factor=3.0)
    (code_model(models / "functions/model", FUNCTIONS) / "code/sibling.py").write_text("FACTOR = 2\n")
    code_model(models / "transform/model", TRANSFORM)
    code_model(models / "service/model", SERVICE)
    code_model(models / "broken/model", "def model_fn(model_dir): raise ValueError\n")
    code_model(models / "hungry/model", "def model_fn(model_dir): raise MemoryError\n")
    return base


NAMES = ("functions", "onnx", "service", "transform", "wrapped")  # as multi-model-server lists them: sorted


@pytest.fixture(scope="module")
def both(base: Path) -> Iterator[Both]:
    variables = {
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_MULTI_MODEL": "true",
        "MOORING_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    }
    options = ("--host", "127.0.0.1")
    with served("mooring", base, *options, **variables) as ours, served("mms", base, *options, **variables) as theirs:
        for server in (ours, theirs):
            server.wait_until_healthy()
            for name in NAMES:
                answer = server.load(name, base / "models" / name / "model")
                assert answer.json() == {"status": "Workers scaled"}, server.log.read_text()
        yield Both({"mooring": ours, "mms": theirs})


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values, dtype=np.float32))
    return file.getvalue()


# --- with the real server ---------------------------------------------------------------------------------------------


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "body", "headers", "status", "expected"),
    [
        ("onnx", b"[[1, 2, 3]]", JSON, 200, b"[[2.0,4.0,6.0]]"),
        ("onnx", b"[[1, 2, 3]]", {"content-type": "application/json; charset=utf-8"}, 200, b"[[2.0,4.0,6.0]]"),
        ("onnx", b"1,2,3\n", CSV | {"accept": "text/csv"}, 200, b"2.0,4.0,6.0\n"),
        ("onnx", npy([[1, 2, 3]]), NPY | {"accept": "application/x-npy"}, 200, npy([[2, 4, 6]])),
        ("onnx", npy([[1, 2, 3]]), NPY | {"accept": "*/*"}, 200, b"[[2.0,4.0,6.0]]"),
        ("onnx", b"", JSON, 400, b"BadRequestException"),
        ("onnx", b"[[1, 2", JSON, 400, b"cannot be read as application/json"),
        ("onnx", b"\xff\xfe", JSON, 400, b"BadRequestException"),
        ("onnx", b"[[1, 2]]", JSON, 400, b"does not fit"),
        ("onnx", b"\x93NUMPY\x01", NPY, 400, b"BadRequestException"),
        ("onnx", b"1", {"content-type": "application/xyz"}, 415, b"UnsupportedMediaTypeException"),
        ("onnx", b"[[1, 2, 3]]", JSON | {"accept": "image/png"}, 406, b"NotAcceptableException"),
        ("wrapped", b"[[1, 2, 3]]", JSON, 200, b"[[3.0,6.0,9.0]]"),
        ("functions", b"1 2.5", {"content-type": "text/plain"}, 200, b"2.0 5.0"),
        ("functions", b"one", {"content-type": "text/plain"}, 500, b"input_fn raised ValueError"),
        ("transform", b'"status"', JSON, 299, b"fine"),
        ("transform", b'"value"', JSON, 500, b"transform_fn raised ValueError"),
        ("transform", b'"memory"', JSON, 507, b"InsufficientMemoryException"),
        ("transform", b'"split"', JSON, 500, b"InternalServerException"),
        ("service", b"abc", {"content-type": "text/plain"}, 200, b"[('body', b'abc')]"),
    ],
)  # fmt: skip
def test_both_engines_answer_alike(
    both: Both, name: str, body: bytes, headers: dict[str, str], status: int, expected: bytes
) -> None:
    answer = both.invoke(name, body, headers)
    assert answer.status_code == status
    assert expected in answer.content
    assert b"secret" not in answer.content


@needs_engine
@pytest.mark.slow
def test_handler_is_told_the_same_of_its_request_and_where_its_model_lies(both: Both, base: Path) -> None:
    told = both.invoke(
        "transform", b"0", JSON | {"X-Trace": "seven", "Cookie": "kept out", "X-Mooring-A": "ours"}
    ).json()
    assert told == [
        str(base / "models/transform/model"),
        "str",
        "application/json",
        "application/json",
        "seven",
        None,
        None,
    ]


@needs_engine
@pytest.mark.slow
def test_answer_larger_than_multi_model_servers_own_limit_arrives_whole(both: Both) -> None:
    assert len(both.invoke("transform", b'"large"').content) == 8_000_000


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/models", {"model_name": "onnx", "url": "{base}/models/onnx/model"}, 409, "ConflictStatusException"),
        ("POST", "/models", {"model_name": "x", "url": "{base}/models/x/model"}, 404, "ModelNotFoundException"),
        ("POST", "/models", {"model_name": "x"}, 400, "BadRequestException"),
        ("POST", "/models/nobody/invoke", [], 404, "ModelNotFoundException"),
        ("GET", "/models/nobody", None, 404, "ModelNotFoundException"),
        ("DELETE", "/models/nobody", None, 404, "ModelNotFoundException"),
        ("PUT", "/models", None, 405, "MethodNotAllowedException"),
    ],
)
def test_both_engines_refuse_alike(
    both: Both, base: Path, method: str, path: str, body: Any, status: int, kind: str
) -> None:
    content = json.dumps(body).replace("{base}", str(base)) if body is not None else None
    for answer in both.ask(lambda client: client.request(method, path, content=content, headers=JSON)):
        assert (answer.status_code, answer.json()["type"]) == (status, kind)


@needs_engine
@pytest.mark.slow
def test_both_engines_list_describe_and_unload_alike(both: Both, base: Path) -> None:
    ours, theirs = both.ask(lambda client: client.get("/models"))
    assert theirs.json() == ours.json()
    url = base / "models/onnx/model"
    for engine in ENGINES:
        both.servers[engine].load("twin", url)
    described = [answer.json() for answer in both.ask(lambda client: client.get("/models/twin"))]
    assert [(each["modelName"], each["modelUrl"]) for each in described] == [("twin", str(url))] * 2
    ours, theirs = both.ask(lambda client: client.delete("/models/twin"))
    assert theirs.json() == ours.json() == {"status": 'Model "twin" unregistered'}
    assert [answer.status_code for answer in both.ask(lambda client: client.get("/models/twin"))] == [404, 404]


@needs_engine
@pytest.mark.slow
def test_both_engines_refuse_a_body_over_the_limit(both: Both) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)
    answers = both.ask(lambda client: client.post("/models/onnx/invoke", content=large, headers=JSON))
    assert [answer.status_code for answer in answers] == [413, 413]


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("broken", 500), ("hungry", 507)])
def test_both_engines_fail_a_load_alike_and_may_be_asked_again(both: Both, base: Path, name: str, status: int) -> None:
    url = base / "models" / name / "model"
    for engine, server in both.servers.items():
        for _ in range(2):
            farewells = times_forgotten(server, name)
            assert server.load(name, url).status_code == status
            if engine == "mooring":
                server.client.delete(f"/models/{name}")
                assert server.client.get(f"/models/{name}").status_code == 404
            else:
                wait_until(functools.partial(is_forgotten, server, name, farewells))


def is_forgotten(server: RunningServer, name: str, farewells: int) -> bool:
    """Whether multi-model-server has forgotten a model for good, told to or not; asked, it may say so and not mean it.

    It answers, then takes the model off its list and ends its process. The thread that does so may have interrupted
    itself, most of the time if memory ran out: then the model is put back, and had answered 404 in between.
    """
    server.client.delete(f"/models/{name}")
    return times_forgotten(server, name) > farewells


def times_forgotten(server: RunningServer, name: str) -> int:
    return server.log.read_text().count(f"Model {name} unregistered.")


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize("url", ["/etc", "../../etc", "{base}/models/../../..", "http://127.0.0.1:{port}/x.mar"])
def test_multi_model_server_loads_from_nowhere_else(both: Both, base: Path, url: str) -> None:
    server = both.servers["mms"]
    asked = {"model_name": "sneaky", "url": url.format(base=base, port=server.port)}
    answer = server.client.post("/models", json=asked)
    assert answer.status_code in (400, 404)
    assert server.client.get("/models/sneaky").status_code == 404


@needs_engine
@pytest.mark.slow
def test_engine_goes_on_after_its_process_stood_still(both: Both) -> None:
    server = both.servers["mms"]
    process = psutil.Process(server.process.pid)
    process.suspend()
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(2 * POLL_S)  # longer than it waits for signals at a time
    process.resume()
    wait_until(lambda: process.status() != psutil.STATUS_STOPPED)
    for _ in range(3):
        assert both.invoke("onnx", b"[[1, 2, 3]]").status_code == 200
    assert server.process.poll() is None


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize("headers", [{"x-trace": "\xff\xfe"}, {"accept": "\xe9"}, {"content-type": "\xe9/x"}])
def test_worker_survives_headers_that_are_no_ascii(both: Both, headers: dict[str, str]) -> None:
    server = both.servers["mms"]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (JSON | headers).items()]
    assert server.client.post("/models/onnx/invoke", content=b"[[1, 2, 3]]", headers=raw).status_code < 500
    assert both.invoke("onnx", b"[[1, 2, 3]]").status_code == 200


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, b"[('a', b'1 & 2'), ('b', b'\\xc3\\xa9')]"),
        ({"f": ("f.bin", b"\0\r\n--x\xff", "image/png")}, b"[('a', b'1 & 2'), ('b', b'\\xc3\\xa9'), ('f', b'\\x00"),
    ],
    ids=["urlencoded", "multipart"],
)
def test_form_reaches_a_service_by_its_fields(both: Both, files: dict[str, Any], expected: bytes) -> None:
    request = httpx.Request("POST", "http://any", data={"a": "1 & 2", "b": "é"}, files=files)
    answer = both.invoke("service", request.read(), {"content-type": request.headers["content-type"]})
    assert answer.status_code == 200
    assert expected in answer.content


@needs_engine
@pytest.mark.slow
def test_form_is_no_content_type_of_a_data_model(both: Both) -> None:
    assert both.invoke("onnx", b"a=1", {"content-type": "application/x-www-form-urlencoded"}).status_code == 415


@needs_engine
@pytest.mark.slow
def test_one_model_is_served_and_everything_ends_with_the_command(tmp_path: Path) -> None:
    folder = scale_model(tmp_path / "one model")
    (folder / "mooring.toml").write_text("workers = 2\n")
    with served("mms", tmp_path, "--model", str(folder)) as server:
        server.wait_until_healthy()
        answer = server.client.post("/invocations", content=b"[[1, 2, 3]]", headers=JSON)
        assert answer.content == b"[[2.0,4.0,6.0]]"
        assert server.client.get("/models/model").json()["minWorkers"] == 2
        family = server.family()
        assert server.stop() == 0
    assert not psutil.wait_procs(family, timeout=10)[1]


@needs_engine
@pytest.mark.slow
def test_repository_is_served_whole_but_for_what_is_no_model(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    scale_model(root / "plain")
    scale_model(root / "with,comma")
    scale_model(tmp_path / "packed")
    shutil.make_archive(str(root / "packed"), "gztar", tmp_path / "packed")
    (root / "empty").mkdir()
    (root / "outside").symlink_to(tmp_path / "packed")
    with served("mms", tmp_path, "--repository", str(root)) as server:
        server.wait_until_healthy()
        assert [model["modelName"] for model in server.client.get("/models").json()["models"]] == ["packed", "plain"]
        assert server.invoke("packed", [[1, 2, 3]]).json() == [[2, 4, 6]]
        assert server.invoke("plain", [[1, 2, 3]]).json() == [[2, 4, 6]]
        for name in ("with,comma", "empty", "outside"):
            assert f"{name}' is left out" in server.log.read_text()


@needs_engine
@pytest.mark.slow
def test_model_that_does_not_load_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    folder = code_model(tmp_path / "broken", "def model_fn(model_dir): raise ValueError\n")
    with served("mms", tmp_path, "--model", str(folder)) as server:
        assert server.process.wait(60) == 1
        assert "model_fn raised ValueError" in server.log.read_text().splitlines()[-1]


@needs_engine
@pytest.mark.slow
def test_java_that_dies_ends_the_command_with_an_error_and_no_orphans(tmp_path: Path) -> None:
    with served("mms", tmp_path, "--model", str(scale_model(tmp_path / "model"))) as server:
        server.wait_until_healthy()
        wait_until(lambda: len(server.family()) >= 3)  # Java, the model's listening process, its worker
        family = server.family()
        next(process for process in family if process.name() == "java").send_signal(signal.SIGKILL)
        assert server.process.wait(30) == 1
        assert "multi-model-server was killed by SIGKILL" in server.log.read_text()
    assert not psutil.wait_procs(family, timeout=10)[1]


# --- without it -------------------------------------------------------------------------------------------------------


def test_missing_java_names_its_package(tmp_path: Path) -> None:
    for variables in ({"PATH": str(tmp_path)}, {"JAVA_HOME": str(tmp_path), "PATH": os.environ["PATH"]}):
        with pytest.raises(MissingEngineError, match="openjdk-17-jre-headless"):
            find_java(variables)


def test_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mms").mkdir()  # somebody else's package of the same name
    (tmp_path / "mms/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingEngineError, match=r"mooring\[mms\]"):
        find_package()


def planned(root: Path, mode: Mode = Mode.MULTI, variables: Mapping[str, str] | None = None) -> MmsPlan:
    settings = ServerSettings(mode, root, "127.0.0.1", limits=Limits(port=9999, response_seconds=1.5, queue_length=7))
    models = {"model": root} if mode is Mode.SINGLE else {}
    return plan(settings, variables or {}, models, java="/java", home=Path("/site"), folder=Path("/run"))


def test_settings_reach_the_java_server_in_its_units() -> None:
    lines = planned(Path("/m")).files[Path("/run/config.properties")].splitlines()
    assert {
        "inference_address=http://127.0.0.1:9999",
        "management_address=http://127.0.0.1:9999",
        "default_response_timeout_seconds=2",
        "job_queue_size=7",
        f"max_request_size={Limits().max_body_bytes}",
    } <= set(lines)


def test_variables_that_would_replace_the_plan_are_left_out() -> None:
    variables = {"MMS_CONFIG_FILE": "/a", "HOME": "/root", "SAGEMAKER_MODEL_SERVER_VMARGS": "-Xmx1g '-Da=b c'"}
    made = planned(Path("/m"), variables=variables)
    assert "MMS_CONFIG_FILE" not in made.variables
    assert made.variables["HOME"] == "/root"
    assert {"-Xmx1g", "-Da=b c"} < set(made.command)


def test_only_the_models_folder_is_linked_into_the_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "real")
    links = planned(tmp_path / "named").links
    store = Path(f"/run/store{tmp_path}")
    assert {store / "named", store / "real"} < set(links)
    assert set(planned(tmp_path / "real", Mode.SINGLE).links) == {store / "real"}


@pytest.mark.parametrize(
    ("value", "line"),
    [("plain", "a=plain"), (" x", "a=\\ x"), ("é\\", "a=\\u00e9\\\\"), ("\n", "a=\\u000a"), ("𝄞", "a=\\ud834\\udd1e")],
)
def test_properties_are_written_as_java_reads_them(value: str, line: str) -> None:
    assert as_properties({"a": value}) == line + "\n"


@pytest.mark.parametrize(("host", "port", "named"), [("::1", 8080, "--host"), ("127.0.0.1", 32767, "--port")])
def test_address_that_java_would_refuse_is_refused_before_anything_is_loaded(host: str, port: int, named: str) -> None:
    with pytest.raises(SettingError, match=named):
        check_address(ServerSettings(Mode.MULTI, Path("/m"), host, limits=Limits(port=port)))
