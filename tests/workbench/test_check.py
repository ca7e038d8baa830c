"""`mooring check`: our own package, images of ours and of others by way of a stand-in for docker. All of it is run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import plain_images
import psutil
import pytest
from docker_double import DockerDouble
from servers import wait_until

from mooring.workbench.conformance.examine import ROWS
from mooring.workbench.conformance.image import BIND_TO_PORT, MULTI_MODELS, TITLE

MOORING = Path(sys.executable).parent / "mooring"
TIMEOUT_S = 110
LABELS = {MULTI_MODELS: "true", BIND_TO_PORT: "true", TITLE: "Mooring"}
# Scripts have no use for the import of torch that ranks share otherwise, and that takes seconds.
QUICK = ("--env", "MOORING_START_METHOD=spawn")
# What has no answer without an image.
CONTAINERS_ONLY = {
    "training.no-network",
    "serving.keeps-to-limits",
    "multi-model.label",
    "multi-model.refuses-what-does-not-fit",
}


def check(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [str(MOORING), "check", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def outcomes(report: str) -> dict[str, dict[str, str]]:
    """The rows of a report in JSON by outcome, each with its reason."""
    found: dict[str, dict[str, str]] = {"pass": {}, "fail": {}, "not applicable": {}}
    for row in json.loads(report)["rows"]:
        found[row["outcome"]][row["id"]] = row["reason"]
    return found


def ids(*parts: str) -> set[str]:
    return {row.id for row in ROWS if row.part.value in parts}


@pytest.mark.parametrize("part", ["training", "multi-model"])
def test_installed_package_keeps_the_contract(tmp_path: Path, part: str) -> None:
    found = outcomes(check("--only", part, "--format", "json", *QUICK, cwd=tmp_path).stdout)
    assert set(found["not applicable"]) == CONTAINERS_ONLY & ids(part)
    assert set(found["pass"]) == ids(part) - CONTAINERS_ONLY
    assert all(found["pass"].values())


@pytest.mark.slow
def test_image_of_ours_passes_and_is_reported_as_junit(tmp_path: Path, docker: DockerDouble) -> None:
    docker.describe("ours:1", {"Labels": LABELS})
    arguments = ("ours:1", "--only", "image", "--only", "serving", "--format", "junit", "--output", "report.xml")
    done = check(*arguments, cwd=tmp_path)
    assert done.stdout == "report.xml\n"
    root = ET.fromstring((tmp_path / "report.xml").read_text(encoding="utf-8"))
    assert [suite.get("name") for suite in root] == ["image", "serving"]
    cases = {f"{suite.get('name')}.{case.get('name')}": case for suite in root for case in suite}
    assert set(cases) == ids("image", "serving")
    assert not root.findall(".//failure")
    assert not root.findall(".//skipped"), [each.get("message") for each in root.findall(".//skipped")]
    assert root.get("tests") == str(len(cases))
    assert [line.split()[1] for line in done.stderr.splitlines()[:-1]] == list(cases)
    asked = {word for words in docker.words for word in words}
    assert {"--user", "--read-only", "--tmpfs", "--cpus", "--memory", "SAGEMAKER_BIND_TO_PORT"} <= asked


def test_server_written_by_hand_is_told_what_it_lacks(tmp_path: Path, docker: DockerDouble) -> None:
    commands = plain_images.write_commands(tmp_path / "bin", serve=plain_images.BY_HAND)
    docker.describe("plain:1", {"Entrypoint": None}, commands)
    (tmp_path / "row.json").write_text("[1, 2, 3]", encoding="utf-8")
    found = outcomes(check("plain:1", "--request", "row.json", "--format", "json", cwd=tmp_path, code=1).stdout)
    assert set(found["fail"]) == {
        "serving.survives-garbage",
        "serving.chunked",
        "serving.stops",
        "serving.drains",
    }
    assert "exit code 143" in found["fail"]["serving.stops"]
    assert ids("training", "multi-model") <= set(found["not applicable"])
    assert "serving.read-only-model" in found["not applicable"]
    assert {"serving.starts", "serving.invokes", "serving.concurrent", "image.commands"} <= set(found["pass"])


def test_server_that_says_yes_to_everything_fails(tmp_path: Path, docker: DockerDouble) -> None:
    commands = plain_images.write_commands(tmp_path / "bin", serve=plain_images.YES_MAN)
    docker.describe("yes:1", {"Labels": {BIND_TO_PORT: "yes"}}, commands)
    (tmp_path / "model").mkdir()
    (tmp_path / "row.json").write_text("[1]", encoding="utf-8")
    arguments = ("--only", "image", "--only", "serving", "--only", "multi-model", "--model", "model")
    done = check("yes:1", *arguments, "--request", "row.json", "--format", "json", cwd=tmp_path, code=1)
    assert set(outcomes(done.stdout)["fail"]) == {
        "image.labels",
        "serving.content-length",
        "serving.execution-parameters",
        "serving.metrics",
        "serving.stops",
        "serving.drains",
        "multi-model.label",
        "multi-model.refuses-second-load",
        "multi-model.lists",
        "multi-model.describes",
        "multi-model.invoke-of-unknown",
        "multi-model.unknown-is-404",
        "multi-model.unloads",
        "multi-model.refuses-damaged-model",
        "multi-model.stops",
    }


def test_careless_training_fails(tmp_path: Path, docker: DockerDouble) -> None:
    commands = plain_images.write_commands(tmp_path / "bin", train=plain_images.CARELESS)
    docker.describe("careless:1", {"Entrypoint": ["/bin/sh", "-c", "train"]}, commands)
    done = check("careless:1", "--only", "image", "--only", "training", "--format", "json", cwd=tmp_path, code=1)
    found = outcomes(done.stdout)
    assert set(found["fail"]) == {
        "image.entrypoint",
        "training.hyperparameters",
        "training.channels",
        "training.hosts",
        "training.variables",
        "training.exit-code",
        "training.failure-file",
        "training.unbuffered",
        "training.stops",
    }
    assert "SM_MODEL_DIR" in found["fail"]["training.variables"]


def test_training_with_an_algorithm_of_its_own_is_asked_what_can_be_seen(tmp_path: Path, docker: DockerDouble) -> None:
    algorithm = '#!/bin/sh\necho begun\ntouch "$SAGEMAKER_BASE_DIR/model/weights"\n'
    docker.describe("own:1", {}, plain_images.write_commands(tmp_path / "bin", train=algorithm))
    found = outcomes(check("own:1", "--only", "training", "--format", "json", cwd=tmp_path).stdout)
    assert set(found["pass"]) == {"training.trains", "training.leaves-a-model", "training.no-network"}
    assert "algorithm of its own" in found["not applicable"]["training.hyperparameters"]


def test_job_that_was_given_is_what_is_tried(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/fit.py").write_text("import sys; print('no rows of', sys.argv[1:]); sys.exit(4)")
    (tmp_path / "rows").mkdir()
    given = ("--code", "code", "--program", "fit.py", "--channel", "train=rows", "--hyperparameters", "epochs=2")
    done = check("--only", "training", *given, *QUICK, "--format", "json", cwd=tmp_path, code=1)
    found = outcomes(done.stdout)
    assert set(found["fail"]) == {"training.trains"}
    assert "exit code 4" in found["fail"]["training.trains"]
    assert "no rows of ['--epochs', '2']" in found["fail"]["training.trains"]


def test_server_that_never_gets_healthy_has_one_failure(tmp_path: Path, docker: DockerDouble) -> None:
    docker.describe("mute:1", {}, plain_images.write_commands(tmp_path / "bin", serve="#!/bin/sh\nexec sleep 1000\n"))
    done = check("mute:1", "--only", "serving", "--timeout", "0.5", cwd=tmp_path, code=1)
    assert "FAIL  starts: it becomes healthy [2.1]\n        /ping was not healthy within 0.5 s." in done.stdout
    assert "Contract 2.1, Launch, probes and limits of a server: After `docker run" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("0 pass, ")


def test_interruption_leaves_what_was_found_and_no_container(tmp_path: Path, docker: DockerDouble) -> None:
    docker.describe("mute:1", {}, plain_images.write_commands(tmp_path / "bin", serve="#!/bin/sh\nexec sleep 1000\n"))
    command = [str(MOORING), "check", "mute:1", "--format", "json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as it:
        wait_until(lambda: list(docker.folder.glob("mooring-*.pid")), 30)
        it.send_signal(signal.SIGTERM)
        assert it.stdout is not None
        report = it.stdout.read()
        assert it.wait(TIMEOUT_S) == 130
    assert "image.commands" in outcomes(report)["pass"]
    (file,) = docker.folder.glob("mooring-*.pid")
    pid = int(file.read_text(encoding="utf-8"))
    wait_until(lambda: not psutil.pid_exists(pid))


def test_rows_are_listed_with_their_line_of_the_contract(tmp_path: Path) -> None:
    done = check("--list", cwd=tmp_path)
    for row in ROWS:
        assert (
            f"  {row.name}: {row.title}\n        {row.section.number} {row.section.title}: {row.line}\n" in done.stdout
        )
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert "ping" not in check("--list", "--only", "training", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--only", "everything"), 2, "invalid choice: 'everything'"),
        (("--content-type", "text/csv"), 2, "give the request with --request"),
        (("--model", "nowhere"), 2, "there is nothing at nowhere"),
        (("--env", "NO_SUCH_VARIABLE"), 2, "no variable NO_SUCH_VARIABLE here"),
        (("--model", "torn.tar.gz"), 1, "torn.tar.gz' cannot be unpacked"),
        (("--code", "."), 1, "Name the script with --program"),
        (("weeds:1",), 1, "No such image: weeds:1. Build the image first"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, docker: DockerDouble, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "torn.tar.gz").write_bytes(b"torn")
    done = check(*arguments, cwd=tmp_path, code=code)
    assert words in done.stderr
    assert done.stdout == ""


def test_machine_without_docker_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath if not Path("/usr/bin/docker").exists() else str(tmp_path))
    assert "There is no command 'docker' on PATH" in check("ours:1", cwd=tmp_path, code=1).stderr
