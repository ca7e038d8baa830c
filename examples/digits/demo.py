"""`make demo`: train on handwritten digits, interrupt, resume, export, serve, invoke. Every step is checked."""

import io
import json
import re
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from mooring.artifact.archive import extract, pack
from mooring.contract.paths import ContainerPaths
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.process_runner import ProcessRunner, RunningProcess

from .endpoint import Endpoint, memory_mib, npy, percentiles
from .images import Split, load_split
from .job import EPOCHS, write_job
from .pictures import prediction_sheet, training_curve

RESULTS = Path("build/demo")
LEAST_ACCURACY = 0.97
ACCURACY = "validation:accuracy"
RESUMED = re.compile(r"resumed after step (\d+)")
EXPORTED = {"model.onnx", "model.safetensors", "class_label_to_prediction_index.json"}
FINAL, INTERRUPTED = "digits-final", "digits-interrupted"
TIMED_INVOCATIONS = 500


Rows = list[dict[str, Any]]


class DemoError(Exception):
    """Something the demo promises did not happen."""


@dataclass
class Report:
    """What happened, as rows of a table."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        """Add a row."""
        self.rows.append((what, value))

    def print(self) -> None:
        """Print the table."""
        width = max(len(what) for what, _ in self.rows)
        print("\n" + "\n".join(f"  {what:<{width}}  {value}" for what, value in self.rows))


def main() -> None:
    """Run the whole job; exits 1 with a sentence if anything promised does not hold."""
    started = time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="mooring-demo-"))
    report = Report()
    try:
        train, validation = load_split()
        say(1, f"{len(train.labels) + len(validation.labels)} digits as PNG files in the four channels below {base}")
        paths = write_job(base, train, validation)
        epochs, interrupted, resumed_at = train_twice(base, paths, report)
        curve = RESULTS / "training-curve.png"
        training_curve(epochs, resumed_at, curve)
        sheet = RESULTS / "predictions.png"
        accuracies = {INTERRUPTED: best(interrupted)[ACCURACY], FINAL: best(epochs)[ACCURACY]}
        serve_and_invoke(base, accuracies, validation, report, sheet)
        serve_without_platform(base, validation, report)
    except DemoError as error:
        print(f"\ndemo: {error}\ndemo: everything is left below {base}", file=sys.stderr)
        sys.exit(1)
    report.add("the whole demo", f"{time.monotonic() - started:.0f} s")
    report.print()
    print(f"\n  training curve      {curve.resolve()}\n  predictions         {sheet.resolve()}")
    shutil.rmtree(base)


def say(step: int, what: str) -> None:
    """Announce a step."""
    print(f"\n[{step}/5] {what}", flush=True)


def check(holds: bool, sentence: str) -> None:
    """Tick off a promise. Raises `DemoError` if it does not hold."""
    if not holds:
        raise DemoError(f"this does not hold: {sentence}")
    print(f"      ✓ {sentence}", flush=True)


def relay(line: str) -> None:
    """Show a line of a command's output."""
    print(f"      | {line.rstrip()}", flush=True)


# --- training ---------------------------------------------------------------------------------------------------------


def train_twice(base: Path, paths: ContainerPaths, report: Report) -> tuple[Rows, Rows, int]:
    """Train, interrupt half way, train on. Returns the rows of all epochs, of those before, and the step between."""
    say(2, "train: two ranks, interrupted half way, then again")
    half_way = threading.Event()

    def watch(line: str) -> None:
        relay(line)
        if any(row["epoch"] >= EPOCHS // 2 for row in metrics(paths)):
            half_way.set()

    with start_training(base, watch) as run:
        while not half_way.wait(timeout=0.05):
            if run.poll() is not None:
                raise DemoError(f"the first run ended by itself with code {run.poll()}")
        print("      → SIGTERM", flush=True)
        code = run.stop(grace_seconds=100)
    check(code == 0, "the interrupted run saved and exited 0")
    interrupted = metrics(paths)
    shutil.copytree(paths.model, base / "models" / INTERRUPTED / "model")
    steps: list[int] = []

    def relay_and_look(line: str) -> None:
        relay(line)
        steps.extend(int(step) for step in RESUMED.findall(line))

    with start_training(base, relay_and_look) as run:
        code = run.wait(timeout=170)
    check(code == 0, "the second run finished and exited 0")
    epochs = metrics(paths)
    resumed_at = steps[0] if steps else 0
    check(resumed_at >= interrupted[-1]["step"], f"it resumed after step {resumed_at}, not from the start")
    check([row["epoch"] for row in epochs] == list(range(1, EPOCHS + 1)), f"{EPOCHS} epochs were trained, each once")
    accuracy = best(epochs)[ACCURACY]
    check(accuracy >= LEAST_ACCURACY, f"validation accuracy of the best epoch is {accuracy:.2%}")
    say(3, "what export left, packed")
    found = {path.name for path in paths.model.iterdir()}
    check(found == EXPORTED, f"/opt/ml/model holds {', '.join(sorted(found))}")
    pack(paths.model, base / "model.tar.gz")
    extract(base / "model.tar.gz", base / "models" / FINAL / "model")
    report.add("accuracy, interrupted run", f"{best(interrupted)[ACCURACY]:.2%}, stopped after step {resumed_at}")
    report.add("accuracy, final run", f"{accuracy:.2%} after step {best(epochs)['step']} of {epochs[-1]['step']}")
    report.add("step time, median", f"{statistics.median(row['step_ms'] for row in epochs):.1f} ms")
    report.add("checkpoint, training held up", f"{statistics.median(row['checkpoint_ms'] for row in epochs):.1f} ms")
    report.add("model.tar.gz", f"{(base / 'model.tar.gz').stat().st_size / 1024:.0f} KiB")
    return epochs, interrupted, resumed_at


def start_training(base: Path, on_line: Callable[[str], None]) -> RunningProcess:
    """Start `train` as the image would, with two processes."""
    variables = {"MOORING_ALGORITHM": "image-classification", "MOORING_PROCESSES_PER_HOST": "2"}
    spec = ContainerSpec(command=("train",), base=base, variables=variables)
    return ProcessRunner(on_line=on_line).start(spec)


def best(epochs: Rows) -> dict[str, Any]:
    """Return the epoch whose model is exported."""
    return max(epochs, key=lambda row: (row[ACCURACY], row["step"]))


def metrics(paths: ContainerPaths) -> Rows:
    """Return what the program recorded of its epochs so far."""
    file = paths.output_data / "metrics.jsonl"
    if not file.exists():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [row for row in rows if ACCURACY in row]


# --- serving ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def png_of(pixels: Any) -> bytes:
    """Encode 8 x 8 pixels as the PNG a client would send."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def serve_and_invoke(
    base: Path,
    accuracies: Mapping[str, float],
    validation: Split,
    report: Report,
    sheet: Path,
) -> None:
    """Serve both models from one multi-model server and try everything the platform would."""
    say(4, "serve: a multi-model endpoint")
    port = free_port()
    spec = ContainerSpec(
        command=("serve",), base=base, variables={"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(port)}
    )
    endpoint = Endpoint(port)
    pngs = [png_of(pixels) for pixels in validation.pixels]
    with ProcessRunner(on_line=relay).start(spec) as server:
        report.add("serve, start to first healthy /ping", f"{endpoint.wait_until_healthy() * 1000:.0f} ms")
        report.add("server memory, no model", f"{memory_mib(server.pid):.1f} MiB")
        load_both(endpoint, base, report)
        report.add("server memory, two models", f"{memory_mib(server.pid):.1f} MiB")
        answers = compare_accuracy(endpoint, accuracies, validation, pngs)
        prediction_sheet(validation.pixels, validation.labels, answers, sheet)
        try_formats(endpoint, validation, pngs)
        time_invocations(endpoint, pngs, report)
        try_errors(endpoint, base, pngs)
        unload_under_traffic(endpoint, pngs)
        report.add("server memory, after the unload", f"{memory_mib(server.pid):.1f} MiB")
        family = psutil.Process(server.pid).children(recursive=True)
        check(server.stop(grace_seconds=30) == 0, "SIGTERM: the server drained and exited 0")
        _, alive = psutil.wait_procs(family, timeout=5)
        check(not alive, "nothing of it is left running")


def load_both(endpoint: Endpoint, base: Path, report: Report) -> None:
    """Load the interrupted run's model and the final one, and list them."""
    for name in (INTERRUPTED, FINAL):
        started = time.perf_counter()
        answer = endpoint.load(name, base / "models" / name / "model")
        check(answer.status_code == 200, f"POST /models loads {name}")
        report.add(f"load {name}", f"{(time.perf_counter() - started) * 1000:.1f} ms")
    listed = [model["modelName"] for model in endpoint.client.get("/models").json()["models"]]
    check(listed == [INTERRUPTED, FINAL], "GET /models lists both")


def compare_accuracy(
    endpoint: Endpoint, accuracies: Mapping[str, float], validation: Split, pngs: list[bytes]
) -> list[tuple[int, float]]:
    """Classify every validation image with both models; the accuracy must be what training measured."""
    answers: list[tuple[int, float]] = []
    for name, trained in accuracies.items():
        answers = [endpoint.classify(name, png) for png in pngs]
        right = sum(answer == label for (answer, _), label in zip(answers, validation.labels, strict=True))
        over_http = right / len(pngs)
        check(
            abs(over_http - trained) < 1e-6, f"{name}: accuracy over HTTP {over_http:.2%} is training's {trained:.2%}"
        )
    return answers


def try_formats(endpoint: Endpoint, validation: Split, pngs: list[bytes]) -> None:
    """The same images as PNG, JSON and npy get the same answers."""
    some = validation.pixels[:16]
    batch = some[:, None].astype(np.float32)
    by_png = [endpoint.invoke(FINAL, png, "application/x-image").json() for png in pngs[:16]]
    by_json = endpoint.invoke(FINAL, json.dumps(batch.tolist()).encode(), "application/json").json()
    answer = endpoint.invoke(FINAL, npy(batch), "application/x-npy", accept="application/x-npy")
    by_npy = np.load(io.BytesIO(answer.content))
    same = np.allclose(by_png, by_json, atol=1e-5) and np.allclose(by_png, by_npy, atol=1e-5)
    check(same, "PNG, JSON and npy bodies get the same probabilities")


def time_invocations(endpoint: Endpoint, pngs: list[bytes], report: Report) -> None:
    """Time one client's invocations."""
    seconds = []
    for index in range(TIMED_INVOCATIONS):
        started = time.perf_counter()
        endpoint.invoke(FINAL, pngs[index % len(pngs)], "application/x-image")
        seconds.append(time.perf_counter() - started)
    median, p99 = percentiles(seconds)
    report.add("invocation, one client, client included", f"p50 {median:.2f} ms, p99 {p99:.2f} ms")


def try_errors(endpoint: Endpoint, base: Path, pngs: list[bytes]) -> None:
    """What goes wrong gets the right status and a sentence, and the next request works."""
    again = endpoint.load(FINAL, base / "models" / FINAL / "model")
    check(again.status_code == 409, f"a second load: 409, {again.json()['message']}")
    unknown = endpoint.invoke("no-such-model", pngs[0], "application/x-image")
    check(unknown.status_code == 404, f"an unknown model: 404, {unknown.json()['message']}")
    torn = endpoint.invoke(FINAL, pngs[0][: len(pngs[0]) // 2], "application/x-image")
    check(torn.status_code == 400, f"a truncated image: 400, {torn.json()['message']}")
    odd = endpoint.invoke(FINAL, b"<image/>", "text/xml")
    check(odd.status_code == 415, f"an unknown content type: 415, {odd.json()['message']}")
    check(endpoint.invoke(FINAL, pngs[0], "application/x-image").status_code == 200, "the next request works")


def unload_under_traffic(endpoint: Endpoint, pngs: list[bytes]) -> None:
    """Unload one model while the other answers."""
    with endpoint.traffic(FINAL, pngs[0]) as seen:
        while seen.answered < 50:
            time.sleep(0.005)
        before = seen.answered
        status = endpoint.client.delete(f"/models/{INTERRUPTED}").status_code
        during = seen.answered - before
        while seen.answered < before + during + 50:
            time.sleep(0.005)
    check(status == 200, f"DELETE /models/{INTERRUPTED} unloads it")
    check(seen.failed == 0, f"meanwhile {FINAL} answered {during} requests and failed none")
    gone = endpoint.invoke(INTERRUPTED, pngs[0], "application/x-image")
    check(gone.status_code == 404, f"{INTERRUPTED} is gone: 404")


def serve_without_platform(base: Path, validation: Split, report: Report) -> None:
    """Serve the archive by itself, and the folder of models, without /opt/ml."""
    say(5, "serve --model and serve --repository, without /opt/ml")
    png = png_of(validation.pixels[0])
    repository = base / "repository"
    repository.mkdir()
    shutil.copytree(base / "models" / INTERRUPTED / "model", repository / INTERRUPTED)
    shutil.copy(base / "model.tar.gz", repository / f"{FINAL}.tar.gz")
    for options, path in (
        (("--model", str(base / "model.tar.gz")), "/invocations"),
        (("--repository", str(repository)), f"/models/{FINAL}/invoke"),
    ):
        port = free_port()
        spec = ContainerSpec(command=("serve", *options, "--port", str(port)), base=base / "nothing", variables={})
        with ProcessRunner(on_line=relay).start(spec) as server:
            endpoint = Endpoint(port)
            endpoint.wait_until_healthy()
            started = time.perf_counter()
            answer = endpoint.client.post(path, content=png, headers={"content-type": "application/x-image"})
            elapsed = (time.perf_counter() - started) * 1000
            check(answer.status_code == 200, f"serve {options[0]} answers POST {path}")
            if options[0] == "--repository":
                report.add("first request to a model not loaded yet", f"{elapsed:.1f} ms, unpacking included")
            check(server.stop(grace_seconds=30) == 0, "and exits 0 on SIGTERM")


if __name__ == "__main__":
    main()
