"""`mooring run`: processes, and containers by way of a stand-in for docker. Real signals, real exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
from docker_double import DockerDouble
from models import code_model
from servers import free_port

from mooring.artifact.archive import pack

MOORING = Path(sys.executable).parent / "mooring"
TIMEOUT_S = 100
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
WAYS = ["process", "container"]

SCRIPT = """
import json, os, pathlib, sys
hyperparameters = json.loads(os.environ["SM_HPS"])
rows = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "rows.csv").read_text()
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(f"{rows} {hyperparameters} {os.environ['MINE']}")
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "curve.txt").write_text("loss")
checkpoints = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "checkpoints/count")
checkpoints.write_text(checkpoints.read_text() + "x" if checkpoints.exists() else "x")
print("trained on", os.environ["SM_CURRENT_HOST"], flush=True)
"""
PATIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("waiting", flush=True)
while True:
    time.sleep(0.05)
"""
STUBBORN = PATIENT.replace("lambda *_: sys.exit(7)", "signal.SIG_IGN")
WRITES_HOSTS = """
import os, pathlib
pathlib.Path(os.environ["SM_MODEL_DIR"], os.environ["SM_CURRENT_HOST"]).write_text(os.environ["SM_HOSTS"])
"""
HANDLER = """
def model_fn(model_dir): return 3
def predict_fn(data, model): return [model * value for value in data]
"""


def command(*arguments: str) -> list[str]:
    # These scripts have no use for the import of torch that ranks share otherwise, and that takes seconds.
    quick = ["--env", "MOORING_START_METHOD=spawn"] if arguments[0] == "train" else []
    return [str(MOORING), "run", *arguments, *quick]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def project(folder: Path, script: str) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "code/train.py").write_text(script, encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data/rows.csv").write_text("1,2", encoding="utf-8")
    return folder


def image(way: str) -> list[str]:
    return ["--image", "flowers:3"] if way == "container" else []


def content(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        return {name: tar.extractfile(name).read().decode() for name in tar.getnames()}  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_job_reads_its_inputs_and_its_results_are_kept(tmp_path: Path, docker: DockerDouble, way: str) -> None:
    folder = project(tmp_path / "p", SCRIPT)
    arguments = ["train", "--code", "code", "--channel", "train=data", "--hyperparameters", "epochs=3", "name=adam"]
    more = ["--env", "MINE=1", "--checkpoints", "ckpt", "--output", "out", *image(way)]
    done = run(*arguments, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "trained on algo-1\n" in done.stderr
    assert done.stdout.split() == ["out/model.tar.gz", "out/output.tar.gz"]
    assert content(folder / "out/model.tar.gz") == {"model.txt": "1,2 {'epochs': 3, 'name': 'adam'} 1"}
    assert content(folder / "out/output.tar.gz") == {"curve.txt": "loss"}
    assert (folder / "ckpt/count").read_text(encoding="utf-8") == "x"
    assert (folder / "data/rows.csv").read_text(encoding="utf-8") == "1,2"


@pytest.mark.parametrize("way", WAYS)
def test_failing_job_gives_its_exit_code_and_its_reason(tmp_path: Path, docker: DockerDouble, way: str) -> None:
    folder = project(tmp_path / "p", "import sys; print('so far'); sys.exit(9)")
    done = run("train", "--code", "code", *image(way), cwd=folder)
    assert done.returncode == 9
    reason = (folder / "output/failure").read_text(encoding="utf-8")
    assert reason.rstrip() in done.stderr.partition("algo-1 failed, and wrote:")[2]


def test_results_that_cannot_be_put_where_they_should_go_are_not_lost(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", WRITES_HOSTS)
    (folder / "out").write_text("a file", encoding="utf-8")
    done = run("train", "--code", "code", "--output", "out", cwd=folder)
    assert done.returncode == 1
    kept = Path(done.stderr.rstrip().rpartition("They are left in ")[2].rstrip("."))
    assert (kept / "algo-1/model/algo-1").is_file()
    shutil.rmtree(kept)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("script", "grace", "code"), [(PATIENT, "60", 7), (STUBBORN, "1", 137)])
def test_interrupt_is_sigterm_then_after_the_grace_a_kill(
    tmp_path: Path, docker: DockerDouble, way: str, script: str, grace: str, code: int
) -> None:
    folder = project(tmp_path / "p", script)
    arguments = command("train", "--code", "code", "--grace", grace, *image(way))
    with subprocess.Popen(arguments, cwd=folder, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None
        seen = next(line for line in it.stderr if "waiting" in line)
        it.send_signal(signal.SIGINT)
        rest = it.stderr.read()
        assert it.wait(TIMEOUT_S) == code, seen + rest
    assert f"SIGKILL after {grace} s" in rest
    if way == "container":
        assert ["stop", "--time", grace] == next(words[:3] for words in docker.words if words[0] == "stop")


@pytest.mark.parametrize("way", WAYS)
def test_second_interrupt_kills_at_once(tmp_path: Path, docker: DockerDouble, way: str) -> None:
    folder = project(tmp_path / "p", STUBBORN)
    arguments = command("train", "--code", "code", "--grace", "10000", *image(way))
    with subprocess.Popen(arguments, cwd=folder, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None
        for words in ("waiting", "another Ctrl-C"):
            assert next(line for line in it.stderr if words in line)
            it.send_signal(signal.SIGINT)
        assert it.wait(TIMEOUT_S) == 137, it.stderr.read()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("packed", [False, True])
def test_server_prints_its_url_when_healthy_and_drains(
    tmp_path: Path, docker: DockerDouble, way: str, packed: bool
) -> None:
    model = code_model(tmp_path / "model", HANDLER)
    if packed:
        pack(model, tmp_path / "model.tar.gz")
        model = tmp_path / "model.tar.gz"
    port = free_port()
    arguments = command("serve", "--model", str(model), "--port", str(port), *image(way))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as it:
        assert it.stdout is not None
        url = it.stdout.readline().strip()
        assert url == f"http://127.0.0.1:{port}"
        request = urllib.request.Request(f"{url}/invocations", b"[1, 2]", {"content-type": "application/json"})
        with LOCAL.open(request, timeout=TIMEOUT_S) as answer:
            assert json.load(answer) == [3, 6]
        it.send_signal(signal.SIGTERM)
        assert it.wait(TIMEOUT_S) == 0


def test_server_that_cannot_serve_ends_with_its_own_code(tmp_path: Path) -> None:
    model = code_model(tmp_path / "model", "def model_fn(model_dir): raise ValueError('torn')\n")
    done = run("serve", "--model", str(model), "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 1
    assert "torn" in done.stderr
    assert done.stdout == ""


def test_server_that_is_never_healthy_is_stopped(tmp_path: Path) -> None:
    model = code_model(tmp_path / "model", "import time\ndef model_fn(model_dir): time.sleep(10000)\n")
    arguments = ["serve", "--model", str(model), "--port", str(free_port()), "--startup", "0.5", "--grace", "1"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "/ping was not healthy within 0.5 s" in done.stderr


def test_hosts_meet_in_a_network_that_is_removed(tmp_path: Path, docker: DockerDouble) -> None:
    """Each host gets its name and its configuration. That they reach one another is for a real engine to show."""
    folder = project(tmp_path / "p", WRITES_HOSTS)
    done = run("train", "--code", "code", "--image", "flowers:3", "--instances", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    hosts = '["algo-1","algo-2"]'
    assert content(folder / "output/model.tar.gz") == {"algo-1": hosts, "algo-2": hosts}
    created, *runs, removed = (words for words in docker.words if words[0] in ("network", "run"))
    assert created[:2] == ["network", "create"]
    assert removed == ["network", "rm", created[2]]
    for words, host in zip(sorted(runs), ("algo-1", "algo-2"), strict=True):
        assert words[words.index("--network-alias") + 1] == words[words.index("--hostname") + 1] == host
        assert words[words.index("--network") + 1] == created[2]


def test_host_that_fails_stops_the_others(tmp_path: Path, docker: DockerDouble) -> None:
    script = "import os, sys\nif os.environ['SM_CURRENT_HOST'] == 'algo-2': sys.exit(5)\n" + PATIENT
    folder = project(tmp_path / "p", script)
    done = run("train", "--code", "code", "--image", "flowers:3", "--instances", "2", cwd=folder)
    assert done.returncode == 5, done.stderr


def test_container_gets_limits_and_no_secret_among_dockers_words(tmp_path: Path, docker: DockerDouble) -> None:
    folder = project(tmp_path / "p", "")
    limits = ["--memory", "2g", "--cpus", "1.5", "--gpus", "all"]
    secret = ["--env", "HF_TOKEN=hunter2"]
    done = run(
        "train", "--code", "code", "--image", "flowers:3", "--channel", "train=data", *limits, *secret, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    words = next(words for words in docker.words if words[0] == "run")
    assert words[words.index("--memory") + 1] == "2g"
    assert words[words.index("--cpus") + 1] == "1.5"
    assert words[words.index("--gpus") + 1] == "all"
    assert words[-2:] == ["flowers:3", "train"]
    assert f"type=bind,src={folder / 'data'},dst=/opt/ml/input/data/train,readonly" in words
    assert "hunter2" not in str(docker.words)


def test_image_keeps_its_own_code_and_model(tmp_path: Path, docker: DockerDouble) -> None:
    plans = [
        run("train", "--image", "flowers:3", "--dry-run", cwd=tmp_path).stdout,
        run("serve", "--image", "flowers:3", "--dry-run", cwd=tmp_path).stdout,
    ]
    assert "dst=/opt/ml/model" in plans[0]
    assert "dst=/opt/ml/code" not in plans[0]
    assert "--mount" not in plans[1]


def test_cpus_of_a_process_are_cores_it_keeps_to(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "import os; print('cores', len(os.sched_getaffinity(0)))")
    done = run("train", "--code", "code", "--cpus", "0.5", cwd=folder)
    assert "cores 1\n" in done.stderr


def test_code_beside_a_ready_made_program_needs_no_script(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    algorithm = ["--env", "MOORING_ALGORITHM=image-classification"]
    plan = run("train", "--code", "code", "--dry-run", *algorithm, cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "SAGEMAKER_PROGRAM" not in plan.stdout


@pytest.mark.parametrize("way", WAYS)
def test_dry_run_shows_everything_but_secrets_and_runs_nothing(tmp_path: Path, docker: DockerDouble, way: str) -> None:
    folder = project(tmp_path / "p", SCRIPT)
    given = ["--channel", "train=data", "--hyperparameters", "epochs=3", "api_key=hunter2", "--env", "HF_TOKEN=hunter2"]
    options = ["--code", "code", "--checkpoints", "ckpt", "--dry-run"]
    done = run("train", *given, *options, *image(way), cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in ("train", "SAGEMAKER_PROGRAM=train.py", '"epochs": "3"', "/opt/ml/input/data/train", '"algo-1"'):
        assert words in done.stdout
    assert "hunter2" not in done.stdout
    assert docker.words == []
    assert sorted(path.name for path in folder.iterdir()) == ["code", "data"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("fly",), 2, "invalid choice: 'fly'"),
        (("train", "--channel", "data"), 2, '"data" is not NAME=DIR'),
        (("train", "--channel", "a=nowhere"), 2, "there is no folder nowhere"),
        (("train", "--hyperparameters", "epochs"), 2, "epochs: "),
        (("train", "--memory", "2g"), 2, "--memory is for containers"),
        (("train", "--instances", "2"), 2, "hosts need containers"),
        (("train", "--env", "NO_SUCH_VARIABLE"), 2, "no variable NO_SUCH_VARIABLE here"),
        (("train", "--code", "."), 1, "Name the script with --program"),
        (("serve", "--model", "nowhere"), 2, "there is nothing at nowhere"),
        (("serve", "--grace", "0"), 2, '"0" is not a number above 0'),
        (("serve", "--model", "torn.tar.gz"), 1, "torn.tar.gz' cannot be unpacked"),
        (("serve", "--image", "weeds", "--port", "1"), 125, "No such image: weeds"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, docker: DockerDouble, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "torn.tar.gz").write_bytes(b"torn")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_machine_without_docker_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath if not Path("/usr/bin/docker").exists() else str(tmp_path))
    done = run("serve", "--image", "flowers:3", cwd=tmp_path)
    assert done.returncode == 1
    assert "There is no command 'docker' on PATH" in done.stderr
