"""Pushing to ECR: against moto's registry, and a stand-in for the docker command. No engine takes part."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.exceptions import ClientError
from docker_double import DockerDouble

from mooring.cli.push import parser, run
from mooring.runner.docker import DockerError, DockerNotFoundError, ask
from mooring.workbench.push import (
    RegistryError,
    RepositoryMissingError,
    default_repository,
    default_tag,
    find_repository,
)

MOORING = Path(sys.executable).parent / "mooring"
REGION = "eu-west-1"


@pytest.fixture
def ecr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield boto3.client("ecr", region_name=REGION)


def push(*arguments: str) -> None:
    run(parser().parse_args(["--region", REGION, *arguments]), None)


def test_image_is_tagged_pushed_and_named(ecr: Any, docker: DockerDouble, capsys: pytest.CaptureFixture[str]) -> None:
    push("flowers:3", "--create", "--repository", "team/flowers", "--tag", "3", "--tag", "latest")
    uri = ecr.describe_repositories(repositoryNames=["team/flowers"])["repositories"][0]["repositoryUri"]
    assert docker.words[1:] == [
        ["login", "--username", "AWS", "--password-stdin", uri.partition("/")[0]],
        ["tag", "flowers:3", f"{uri}:3"],
        ["tag", "flowers:3", f"{uri}:latest"],
        ["push", f"{uri}:3"],
        ["push", f"{uri}:latest"],
    ]
    told = capsys.readouterr()
    assert told.out == f"{uri}:3\n"
    assert "The push refers to repository" in told.err


def test_password_is_on_standard_input_only(ecr: Any, docker: DockerDouble, capfd: pytest.CaptureFixture[str]) -> None:
    push("flowers:3", "--create")
    secrets = [call["secret"] for call in docker.calls if call["secret"] is not None]
    assert secrets == [find_repository("flowers", REGION, create=False).password]
    assert len(secrets[0]) > 3
    assert not [word for words in docker.words for word in words if secrets[0] in word]
    told = capfd.readouterr()
    assert secrets[0] not in told.out + told.err
    assert secrets[0] not in repr(find_repository("flowers", REGION, create=False))


def test_repository_that_is_there_is_used_again(ecr: Any, docker: DockerDouble) -> None:
    ecr.create_repository(repositoryName="flowers")
    push("flowers:3")
    push("flowers:3", "--create")
    assert len(ecr.describe_repositories()["repositories"]) == 1


def test_missing_repository_is_named_and_nothing_is_pushed(ecr: Any, docker: DockerDouble) -> None:
    with pytest.raises(RepositoryMissingError, match=f"no repository 'flowers' in {REGION}. Make it with --create"):
        push("flowers:3")
    assert {words[0] for words in docker.words} == {"image"}


def test_no_repository_is_made_for_an_image_that_is_not_there(ecr: Any, docker: DockerDouble) -> None:
    with pytest.raises(DockerError, match=r"No such image: weeds\. Build the image first"):
        push("weeds", "--create")
    assert ecr.describe_repositories()["repositories"] == []


@pytest.mark.parametrize(
    ("command", "said", "helps"),
    [
        ("push", "denied: User is not authorized to perform: ecr:InitiateLayerUpload", "need the right to push"),
        ("push", "tag invalid: The image tag '3' already exists and is immutable", "choose another with --tag"),
        ("login", "Error saving credentials: no space left on device", "docker system df"),
        ("image", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "Start the Docker engine"),
    ],
)
def test_what_docker_fails_with_is_told_with_what_would_help(
    ecr: Any, docker: DockerDouble, command: str, said: str, helps: str
) -> None:
    docker.set("flowers:3", **{command: said})
    with pytest.raises(DockerError) as caught:
        push("flowers:3", "--create")
    assert said in str(caught.value)
    assert helps in str(caught.value)


@pytest.mark.parametrize(
    ("code", "helps"), [("AccessDeniedException", "permission ecr:GetAuth"), ("ExpiredTokenException", "log in again")]
)
def test_refusal_of_ecr_says_what_would_help(ecr: Any, monkeypatch: pytest.MonkeyPatch, code: str, helps: str) -> None:
    """moto refuses nobody, so the refusal is put into botocore where the answer would be."""
    ecr.create_repository(repositoryName="flowers")
    from botocore.client import BaseClient

    real = BaseClient._make_api_call

    def refuse(client: Any, operation: str, given: Any) -> Any:
        if operation == "GetAuthorizationToken":
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
        return real(client, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    with pytest.raises(RegistryError, match=helps):
        find_repository("flowers", REGION, create=False)


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    return subprocess.run(
        [str(MOORING), "push", *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("flowers:3",), 1, "No region is set. Give --region"),
        (("flowers:3", "--region", REGION), 1, "no credentials for AWS"),
        (("flowers:3", "--tag", "a b"), 2, '"a b" is not a tag'),
        (("flowers:3", "--repository", "Big"), 2, '"Big" is not a repository'),
        ((), 2, "IMAGE"),
    ],
)
def test_command_says_what_is_missing(
    docker: DockerDouble, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    variables = {"PATH": str(docker.folder), "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = command(*arguments, **variables)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_machine_without_docker_is_told_so(tmp_path: Path) -> None:
    done = command("flowers", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "There is no command 'docker' on PATH" in done.stderr


def test_missing_boto3_names_the_extra(docker: DockerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(RegistryError, match=r"Install mooring\[aws\]"):
        push("flowers:3")


def test_lines_of_docker_are_relayed_as_they_come(docker: DockerDouble) -> None:
    lines = io.StringIO()
    ask(["docker", "push", "x"], lines.write)
    assert lines.getvalue() == "The push refers to repository [somewhere]\n"


def test_docker_that_is_not_there_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DockerNotFoundError):
        ask(["docker", "info"])


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("flowers", "flowers", "latest"),
        ("team/flowers:3", "team/flowers", "3"),
        ("localhost/flowers", "flowers", "latest"),
        ("registry.example:5000/team/flowers:3@sha256:abc", "team/flowers", "3"),
    ],
)
def test_repository_and_tag_of_an_image(image: str, repository: str, tag: str) -> None:
    assert (default_repository(image), default_tag(image)) == (repository, tag)
