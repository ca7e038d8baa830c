import sys
from typing import Any

import pytest
from archives import image_archive
from docker_double import DockerDouble

from mooring.cli.doctor import main

SITE = "opt/venv/lib/python3.11/site-packages"
TRAIN, SERVE = "opt/venv/bin/train", "opt/venv/bin/serve"
MULTI_MODELS = "com.amazonaws.sagemaker.capabilities.multi-models"
OPEN = {TRAIN: 0o755, SERVE: 0o755, "usr/bin/serve": 0o755}


def image(docker: DockerDouble, *files: str, modes: dict[str, int] = OPEN, **config: Any) -> None:
    facts = {"Id": "sha256:12", "Os": "linux", "Architecture": "arm64", "Size": 445_000_000, "Config": config}
    links = {"usr/local/bin/train": "/opt/venv/bin/train"} if "linked" in files else {}
    contents = dict.fromkeys((file for file in files if file != "linked"), "text")
    docker.hold("team/flowers", facts, image_archive(contents, links=links, modes=modes))


def doctor(monkeypatch: pytest.MonkeyPatch, name: str = "team/flowers") -> int:
    monkeypatch.setattr(sys, "argv", ["mooring doctor", name])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_image_that_has_all_it_needs_is_described(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = (f"{SITE}/torch-2.13.0+cpu.dist-info/METADATA", f"{SITE}/mooring-0.1.0.dist-info/METADATA")
    env = ["LANG=C", "PATH=/opt/venv/bin:/usr/bin"]
    image(docker, TRAIN, SERVE, "usr/bin/serve", *packages, Env=env, Labels={MULTI_MODELS: "true"})
    assert doctor(monkeypatch) == 0
    assert capsys.readouterr().out.splitlines() == [
        "image       sha256:12, linux/arm64, 445 MB",
        "train       /opt/venv/bin/train",
        "serve       /opt/venv/bin/serve",
        f"many models yes: it has the label {MULTI_MODELS}",
        "pipelines   no: it lacks LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true",
        "packages    mooring 0.1.0, torch 2.13.0+cpu",
    ]
    assert "run" not in {words[0] for words in docker.words}


@pytest.mark.parametrize(
    ("files", "config", "problem"),
    [
        ((), {}, "neither `train` nor `serve`"),
        ((TRAIN,), {"Entrypoint": ["/bin/sh", "-c", "train"]}, "is a shell"),
        ((TRAIN,), {"Entrypoint": ["/usr/bin/tini", "--"]}, "is tini"),
        (
            (f"{SITE}/onnxruntime-1.31.1.dist-info/METADATA", f"{SITE}/onnxruntime_gpu-1.31.1.dist-info/METADATA"),
            {"Entrypoint": ["run"]},
            "overwrite each other",
        ),
        (("usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15",), {"Entrypoint": ["run"]}, "NVIDIA's driver"),
        (("opt/tools/train",), {"Env": ["PATH=/opt/tools"]}, "/opt/tools/train may not be started by every user"),
    ],
)
def test_what_stands_in_the_way_is_named_with_what_helps(
    docker: DockerDouble,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    config: dict[str, Any],
    problem: str,
) -> None:
    image(docker, *files, **config)
    assert doctor(monkeypatch) == 1
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert problem in told


def test_command_that_is_a_link_is_found_where_path_looks_first(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image(docker, "linked", "usr/bin/train", modes={"usr/bin/train": 0o755})
    assert doctor(monkeypatch) == 0
    assert "train       /usr/local/bin/train" in capsys.readouterr().out


def test_name_of_nothing_is_neither_model_nor_image(
    docker: DockerDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(monkeypatch, "no/such") == 1
    assert "no model at no/such, and no image of that name" in capsys.readouterr().err
