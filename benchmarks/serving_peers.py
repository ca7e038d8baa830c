"""`make bench-serving`: our server against its peers on one tiny ONNX model, interleaved, as ratios of medians.

Each peer runs in an environment of its own from PyPI, at the worker count that suited it best in a first round. Load
comes from wrk (`apt-get install wrk`). Machines are shared and noisy, so only ratios within one run mean anything.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from benchmarks.peers import peer_environment
from benchmarks.serving import free_port, tiny_model

ROWS = "[[1.0,2.0,3.0]]"
TENSORS = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1.0,2.0,3.0]}]}'
START_S = 180.0
SCRIPT = Path(__file__).with_name("post.lua")
APPS = "benchmarks.peer_apps"
OURS = Path(sys.executable).parent
RUNTIME = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Place:
    """What a peer is started with."""

    binaries: Path  # where its commands lie
    port: int
    workers: int
    folder: Path  # its own


@dataclass(frozen=True)
class Peer:
    """A server, and how to start it."""

    name: str
    requirements: tuple[str, ...]  # none: it runs in our own environment
    command: Callable[[Place], Sequence[str]]
    path: str
    body: str = ROWS
    workers: tuple[int, ...] = (1, 2)
    needs: tuple[str, ...] = ()
    path_entries: tuple[str, ...] = ()  # where Python finds what it needs beside its environment


def _ours(place: Place) -> Sequence[str]:
    repository = place.folder / "models"
    shutil.copytree(Path(os.environ["MODEL"]).parent, repository / "tiny", dirs_exist_ok=True)
    return (str(place.binaries / "serve"), "--repository", str(repository), "--port", str(place.port))


def _mms(place: Place) -> Sequence[str]:
    model = str(Path(os.environ["MODEL"]).parent)
    return (
        str(place.binaries / "serve"),
        "--engine",
        "mms",
        "--model",
        model,
        "--port",
        str(place.port),
        "--workers",
        str(place.workers),
    )


def _uvicorn(application: str) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        quiet = ("--no-access-log", "--log-level", "warning")
        return (
            str(place.binaries / "uvicorn"),
            application,
            *quiet,
            "--port",
            str(place.port),
            "--workers",
            str(place.workers),
        )

    return command


def _litserve(place: Place) -> Sequence[str]:
    return (str(place.binaries / "python"), "-m", f"{APPS}.litserve_app", str(place.port), str(place.workers))


def _bentoml(place: Place) -> Sequence[str]:
    start = (str(place.binaries / "bentoml"), "serve", f"{APPS}.bento_app:Tiny")
    return (*start, "--port", str(place.port), "--host", "127.0.0.1")


def _mlserver(place: Place) -> Sequence[str]:
    model = {"name": "tiny", "implementation": f"{APPS}.mlserver_runtime.Tiny"}
    (place.folder / "model-settings.json").write_text(
        json.dumps(model | {"max_batch_size": 64, "max_batch_time": 0.001})
    )
    # 0: in the process of the server; with one worker or more, requests cross to other processes.
    ports = {"http_port": place.port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = ports | {"parallel_workers": place.workers - 1, "debug": False, "host": "127.0.0.1"}
    (place.folder / "settings.json").write_text(json.dumps(settings))
    return (str(place.binaries / "mlserver"), "start", str(place.folder))


def _torchserve(place: Place) -> Sequence[str]:
    handler = Path(__file__).with_name("peer_apps") / "torchserve_handler.py"
    store = place.folder / "store"
    store.mkdir(exist_ok=True)
    pack = (
        "--model-name",
        "tiny",
        "--version",
        "1.0",
        "--handler",
        str(handler),
        "--export-path",
        str(store),
        "--force",
    )
    subprocess.run([str(place.binaries / "torch-model-archiver"), *pack], check=True, capture_output=True)
    addresses = {
        f"{kind}_address": f"http://127.0.0.1:{number}"
        for kind, number in (("inference", place.port), ("management", free_port()), ("metrics", free_port()))
    }
    batching = {"minWorkers": place.workers, "maxWorkers": place.workers, "batchSize": 64, "maxBatchDelay": 1}
    models = {"tiny": {"1.0": {"marName": "tiny.mar", "responseTimeout": 120, "defaultVersion": True, **batching}}}
    lines = [f"{key}={value}" for key, value in addresses.items()]
    lines += ["load_models=tiny.mar", "disable_token_authorization=true", "job_queue_size=1000"]
    lines += [f"models={json.dumps(models)}", "default_response_timeout=120", "grpc_inference_port=0"]
    (place.folder / "config.properties").write_text("\n".join(lines[:-1]) + "\n")
    start = ("--foreground", "--start", "--ncs", "--model-store", str(store), "--models", "tiny.mar")
    return (str(place.binaries / "torchserve"), *start, "--ts-config", str(place.folder / "config.properties"))


PEERS = (
    Peer("mooring", (), _ours, "/models/tiny/invoke", workers=(1,)),
    Peer("raw loop", (), _uvicorn("benchmarks.raw_loop:application"), "/invocations", workers=(1,)),
    Peer("batching loop", (), _uvicorn(f"{APPS}.batching_loop:application"), "/invocations", workers=(1,)),
    Peer("FastAPI", (), _uvicorn(f"{APPS}.fastapi_app:app"), "/invocations"),
    Peer("multi-model-server", (), _mms, "/invocations", needs=("java",), path_entries=(f"{sys.prefix}/mms",)),
    Peer("LitServe", ("litserve==0.2.19", *RUNTIME), _litserve, "/invocations"),
    Peer("BentoML", ("bentoml==1.4.30", *RUNTIME), _bentoml, "/invocations", '{"rows":[[1.0,2.0,3.0]]}'),
    Peer("MLServer", ("mlserver==1.7.1", *RUNTIME), _mlserver, "/v2/models/tiny/infer", TENSORS),
    Peer(
        "TorchServe",
        ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "setuptools<80", "packaging", "pyyaml", *RUNTIME),
        _torchserve,
        "/predictions/tiny",
        needs=("java",),
    ),
)


def main() -> None:
    """Run all rounds, print the table, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="some of: " + ", ".join(peer.name for peer in PEERS))
    parser.add_argument("--clients", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("There is no wrk on PATH: apt-get install wrk")
    wanted = given.peers.split(",") if given.peers else [peer.name for peer in PEERS]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["MODEL"] = str(tiny_model(Path(folder) / "tiny/model.onnx"))
        targets = {}
        for peer in PEERS:
            if peer.name in wanted:
                target = started(peer, Path(folder), stack)
                if target is not None:
                    targets[peer.name] = target
        figures = {clients: measured(targets, int(clients), given) for clients in given.clients.split(",")}
    for clients, rows in figures.items():
        show(int(clients), rows, given)
    if given.out is not None:
        given.out.write_text(json.dumps({"machine": machine(), "clients": figures}, indent=2) + "\n")


@dataclass(frozen=True)
class Running:
    """A peer that has answered. Those that are not measured stand still: some spin while they have nothing to do."""

    peer: Peer
    port: int
    process: "subprocess.Popen[bytes]"

    def ask(self, clients: int, seconds: float) -> dict[str, float]:
        """Send requests from so many connections; returns requests/s, p50 and p99 in milliseconds, and errors."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            return wrk(self.port, self.peer, clients, seconds)
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


def started(peer: Peer, folder: Path, stack: ExitStack) -> Running | None:
    """Start a peer at the worker count that answers most; None, with the reason printed, if it does not start."""
    missing = [command for command in peer.needs if shutil.which(command) is None]
    if missing:
        print(f"{peer.name}: left out, there is no {missing[0]} on PATH", flush=True)
        return None
    try:
        binaries = peer_environment(peer.name.lower(), *peer.requirements) if peer.requirements else OURS
        tried = {}
        for workers in peer.workers if len(peer.workers) > 1 else ():
            with running(peer, binaries, workers, folder) as found:
                found.ask(16, 1.0)
                tried[workers] = found.ask(16, 2.0)["rps"]
        best = max(tried, key=lambda workers: tried[workers]) if tried else peer.workers[0]
        found = stack.enter_context(running(peer, binaries, best, folder))
        found.ask(16, 1.0)
    except (TimeoutError, OSError, subprocess.CalledProcessError) as error:
        print(f"{peer.name}: left out, it did not start: {error}", flush=True)
        return None
    print(f"{peer.name}: {best} worker(s)", flush=True)
    return found


@contextmanager
def running(peer: Peer, binaries: Path, workers: int, folder: Path) -> Iterator[Running]:
    """Run a peer for the length of the block, once it has answered. Raises `TimeoutError`."""
    port = low_port()
    own = Path(tempfile.mkdtemp(dir=folder))
    python_path = os.pathsep.join((str(Path(__file__).parents[1]), *peer.path_entries))
    variables = os.environ | {"PYTHONPATH": python_path, "WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "1"}
    variables["PATH"] = f"{binaries}:{variables['PATH']}"
    command = list(peer.command(Place(binaries, port, workers, own)))
    with (own / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=variables, cwd=own, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(port, peer, process, own / "log")
        yield Running(peer, port, process)
    finally:
        with_grace(process)


def with_grace(process: "subprocess.Popen[bytes]") -> None:
    """Ask a peer's whole group to end, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)
            process.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def low_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives out: some take no other."""
    for port in range(20_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise TimeoutError("no port is free")


def wait_for(port: int, peer: Peer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a peer answers with 200. Raises `TimeoutError` with the end of its log."""
    limit = time.monotonic() + START_S
    answer = "nothing"
    while time.monotonic() < limit and process.poll() is None:
        try:
            response = httpx.post(
                f"http://127.0.0.1:{port}{peer.path}", content=peer.body, headers={"content-type": "application/json"}
            )
            answer = f"{response.status_code} {response.text[:200]}"
            if response.status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"answered {answer}; its log ends {log.read_text(errors='replace')[-500:]!r}")


def wrk(port: int, peer: Peer, clients: int, seconds: float) -> dict[str, float]:
    """Send requests from so many connections; returns requests/s, p50 and p99 in milliseconds, and errors."""
    url = f"http://127.0.0.1:{port}{peer.path}"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(SCRIPT), url]
    done = subprocess.run(
        command, env=os.environ | {"BODY": peer.body}, capture_output=True, text=True, check=True, timeout=seconds + 60
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measured(targets: dict[str, Running], clients: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return the medians of each peer over rounds in which all take turns."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    for _ in range(given.rounds):
        for name, target in targets.items():
            rounds[name].append(target.ask(clients, given.seconds))
    return {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in rounds.items()
    }


def show(clients: int, rows: dict[str, dict[str, float]], given: argparse.Namespace) -> None:
    """Print medians, and how many times a peer's requests ours are."""
    print(f"\n{clients} client(s), {given.rounds} interleaved rounds of {given.seconds:g} s, medians")
    ours = rows.get("mooring", {"rps": 0.0})["rps"]
    for name, row in rows.items():
        errors = f"   {row['errors']:.0f} errors" if row["errors"] else ""
        ratio = f"{ours / row['rps']:6.2f} x" if row["rps"] else "     -"
        print(
            f"  {name:<20} {row['rps']:>9,.0f} requests/s   p50 {row['p50_ms']:7.2f} ms   p99 {row['p99_ms']:8.2f} ms"
            f"   mooring is {ratio}{errors}"
        )


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    packages = ("onnxruntime", "uvicorn", "uvloop", "fastapi")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
