"""How each server is started: its command, and the files that it reads."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from .models import Model
from .peer import Place, low_port

APPS = "benchmarks.serving_suite.peer_apps"
HANDLER = Path(__file__).with_name("peer_apps") / "archive_handler.py"
MODEL = "rows"
MOST_ROWS = 64
BATCH_DELAY_MS = 1
LOAD_S = 120.0
# For servers in Java, which else write lines for each request: ours writes none.
QUIET = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="console" target="SYSTEM_OUT"><PatternLayout pattern="%level %logger{1}: %m%n"/></Console>
  </Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


def mooring(place: Place) -> Sequence[str]:
    """Serve a folder of one model, all settings as they come."""
    repository = place.folder / "models"
    shutil.copytree(place.model.file.parent, repository / MODEL, dirs_exist_ok=True)
    return (str(place.binaries / "serve"), "--repository", str(repository), "--port", str(place.port))


def uvicorn(application: str) -> Callable[[Place], Sequence[str]]:
    """Return what starts an ASGI application."""

    def command(place: Place) -> Sequence[str]:
        quiet = ("--no-access-log", "--log-level", "warning")
        numbers = ("--port", str(place.port), "--workers", str(place.way.workers))
        return (str(place.binaries / "uvicorn"), f"{APPS}.{application}", *quiet, *numbers)

    return command


def litserve(place: Place) -> Sequence[str]:
    """Run its server, which starts its own workers."""
    return (str(place.binaries / "python"), "-m", f"{APPS}.litserve_app", str(place.port), str(place.way.workers))


def bentoml(place: Place) -> Sequence[str]:
    """Run its service; the number of workers is in a variable."""
    start = (str(place.binaries / "bentoml"), "serve", f"{APPS}.bento_app:Rows")
    return (*start, "--port", str(place.port), "--host", "127.0.0.1")


def mlserver(place: Place) -> Sequence[str]:
    """Write a model's settings and the server's. Its best is no worker: with any, requests cross to other processes."""
    model: dict[str, object] = {"name": MODEL, "implementation": f"{APPS}.mlserver_runtime.Rows"}
    batching = {"max_batch_size": MOST_ROWS, "max_batch_time": 0.001} if place.way.batch > 1 else {}
    (place.folder / "model-settings.json").write_text(json.dumps(model | batching))
    ports = {"http_port": place.port, "grpc_port": low_port(), "metrics_port": low_port()}
    settings = ports | {"parallel_workers": place.way.workers - 1, "debug": False, "host": "127.0.0.1"}
    (place.folder / "settings.json").write_text(json.dumps(settings))
    return (str(place.binaries / "mlserver"), "start", str(place.folder))


def pytriton(place: Place) -> Sequence[str]:
    """Run Triton, which calls back into Python."""
    numbers = map(str, (place.port, low_port(), low_port(), place.way.workers))
    return (str(place.binaries / "python"), "-m", f"{APPS}.pytriton_app", *numbers)


def python_library() -> dict[str, str]:
    """Return what makes Triton load the library of our Python, not another of the same minor version."""
    return {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}


def torchserve(place: Place) -> Sequence[str]:
    """Pack an archive, and write the configuration."""
    store = place.folder / "store"
    store.mkdir(exist_ok=True)
    named = ("--model-name", MODEL, "--version", "1.0", "--handler", str(HANDLER), "--export-path", str(store))
    pack = (str(place.binaries / "torch-model-archiver"), *named, "--extra-files", str(place.model.file), "--force")
    subprocess.run(pack, check=True, capture_output=True)
    batching = {"batchSize": place.way.batch, "maxBatchDelay": BATCH_DELAY_MS}
    terms: dict[str, object] = {
        "minWorkers": place.way.workers,
        "maxWorkers": place.way.workers,
        "responseTimeout": 120,
        **batching,
    }
    models: dict[str, object] = {MODEL: {"1.0": {"marName": f"{MODEL}.mar", "defaultVersion": True, **terms}}}
    kinds = {"inference": place.port, "management": low_port(), "metrics": low_port()}
    lines = [f"{kind}_address=http://127.0.0.1:{number}" for kind, number in kinds.items()]
    lines += [f"grpc_{kind}_port={low_port()}" for kind in ("inference", "management")]
    lines += ["load_models=all", "disable_token_authorization=true", "job_queue_size=1000"]
    lines += [f"models={json.dumps(models)}", "default_response_timeout=120"]
    (place.folder / "config.properties").write_text("\n".join(lines) + "\n")
    start = ("--foreground", "--start", "--ncs", "--model-store", str(store), "--models", "all")
    given = ("--ts-config", str(place.folder / "config.properties"), "--log-config", _quiet(place.folder))
    return (str(place.binaries / "torchserve"), *start, *given)


def multi_model_server(place: Place) -> Sequence[str]:
    """Serve one model, registered once it listens."""
    model_for_mms(place.model.file, place.folder / "store" / MODEL)
    return mms_command(place.binaries, place.port, place.folder)


def mms_command(binaries: Path, port: int, folder: Path) -> Sequence[str]:
    """Write multi-model-server's configuration into a folder, where its models lie in `store`."""
    address = f"http://127.0.0.1:{port}"
    lines = [f"inference_address={address}", f"management_address={address}", "job_queue_size=1000"]
    lines += ["default_response_timeout_seconds=120", "decode_input_request=false"]
    configuration = folder / "config.properties"
    configuration.write_text("\n".join(lines) + "\n")
    given = ("--model-store", str(folder / "store"), "--mms-config", str(configuration))
    start = ("--start", "--foreground", "--log-config", _quiet(folder))
    return (str(binaries / "multi-model-server"), *start, *given)


def _quiet(folder: Path) -> str:
    """Write a configuration of logs that are warnings, and return its path."""
    file = folder / "log4j2.xml"
    file.write_text(QUIET)
    return str(file)


def model_for_mms(file: Path, folder: Path) -> None:
    """Write a model's folder as multi-model-server wants it."""
    (folder / "MAR-INF").mkdir(parents=True)
    shutil.copy(file, folder / "model.onnx")
    shutil.copy(HANDLER, folder)
    told = {"modelName": folder.name, "handler": f"{HANDLER.stem}:handle"}
    manifest = {"runtime": "python", "model": told, "modelServerVersion": "1.1", "specificationVersion": "1.0"}
    (folder / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))


def register(place: Place) -> None:
    """Load multi-model-server's one model. Raises `httpx.HTTPError` if it is refused."""
    batching = {"batch_size": place.way.batch, "max_batch_delay": BATCH_DELAY_MS}
    terms: dict[str, str | int] = {
        "url": MODEL,
        "model_name": MODEL,
        "initial_workers": place.way.workers,
        "synchronous": "true",
    }
    address = f"http://127.0.0.1:{place.port}/models"
    httpx.post(address, params={**terms, **batching}, timeout=LOAD_S).raise_for_status()


def at(path: str) -> Callable[[Model], str]:
    """Return one path for all models."""
    return lambda _: path


def fastapi_path(model: Model) -> str:
    """Return the path for rows as text, or for an array file."""
    return "/array" if model.is_raw else "/invocations"


def variables(place: Place) -> dict[str, str]:
    """Return what servers written by hand read: the model, and how many of what."""
    threads = max(1, len(os.sched_getaffinity(0)) // place.way.workers) if place.model.fills_cores else 1
    numbers = {"WORKERS": place.way.workers, "BATCH": place.way.batch, "THREADS": threads}
    told = {name: str(number) for name, number in numbers.items()}
    return told | {"MODEL": str(place.model.file)} | surroundings(place.binaries, place.folder)


def surroundings(binaries: Path, folder: Path) -> dict[str, str]:
    """Return where a server finds its commands and this code, with folders of its own for what it leaves behind."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        "BENTOML_DO_NOT_TRACK": "1",
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),  # where multi-model-server's Java puts its sockets
        "PYTRITON_HOME": str(folder / "triton"),
        "MOORING_MODEL_CACHE": str(folder / "cache"),
    }
