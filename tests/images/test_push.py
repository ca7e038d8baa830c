"""`mooring push` with a real Docker: into a registry of this machine, whose address moto's ECR is made to give."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from containers import docker
from images import Images
from registry import Registry, digest_of, running_registry

from mooring.cli.push import parser, run
from mooring.runner.docker import DockerError
from mooring.workbench import push as workbench

REGION = "eu-west-1"
NAME = "team/flowers"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Images) -> Iterator[Registry]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with moto.mock_aws():
        client = boto3.client("ecr", region_name=REGION)
        client.create_repository(repositoryName=NAME)
        with running_registry(workbench.find_repository(NAME, REGION, create=False).password) as running:

            def point_here(parsed: dict[str, Any], **_: object) -> None:
                for repository in parsed["repositories"]:
                    repository["repositoryUri"] = f"{running.address}/{repository['repositoryName']}"

            client.meta.events.register("after-call.ecr.DescribeRepositories", point_here)
            monkeypatch.setattr(workbench, "_client", lambda _: client)
            yield running


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /words\nCMD ["/words"]\n', encoding="utf-8")
    docker("build", "--quiet", "--tag", "mooring-pushed:3", str(tmp_path))
    yield "mooring-pushed:3"
    docker("image", "rm", "--force", "mooring-pushed:3")


def push(*arguments: str) -> None:
    run(parser().parse_args(["--region", REGION, "--repository", NAME, *arguments]), None)


def test_image_that_was_pushed_can_be_pulled(
    registry: Registry, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    push(image, "--tag", "3", "--tag", "latest")
    address = capsys.readouterr().out.strip()
    assert address == f"{registry.address}/{NAME}:3"
    kind, manifest = registry.manifests[NAME, "3"]
    assert registry.manifests[NAME, "latest"] == (kind, manifest)
    assert all(digest_of(content) == digest for digest, content in registry.blobs.items())
    pushed_id = docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    docker("image", "rm", "--force", image, address, f"{registry.address}/{NAME}:latest")
    docker("pull", "--quiet", address)
    assert docker("image", "inspect", "--format", "{{.Id}}", address).strip() == pushed_id
    assert json.loads(docker("image", "inspect", "--format", "{{json .Config.Cmd}}", address)) == ["/words"]
    docker("image", "rm", "--force", address)


def test_registry_that_does_not_know_the_password_is_an_error_of_docker(registry: Registry, image: str) -> None:
    registry.password = "another"
    with pytest.raises(DockerError, match=r"(?i)unauthorized|denied|401"):
        push(image)
    assert not registry.manifests
