"""An image into ECR: the repository is found or made, Docker logged in, the image tagged and pushed.

boto3 is imported when it is called. The registry's password goes to Docker's standard input and nowhere else.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mooring.contract.errors import PlatformError
from mooring.runner.docker import DOCKER, ask

# [registry/]name[:tag][@digest]; a registry has a dot or a port, or is this machine.
IMAGE = re.compile(r"(?:(?:[^/@]*[.:][^/@]*|localhost)/)?(?P<name>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?")
DEFAULT_TAG = "latest"
REGISTRY_USER = "AWS"
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"})
DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


class RegistryError(PlatformError):
    """ECR cannot be used as it was to be."""


class RepositoryMissingError(RegistryError):
    """There is no such repository, and none was to be made."""

    def __init__(self, name: str, region: str) -> None:
        self.name = name
        self.region = region
        super().__init__(
            f"There is no repository '{name}' in {region}. Make it with --create, or name another with --repository."
        )


@dataclass(frozen=True)
class Repository:
    """A repository in ECR, and the password that opens its registry for some hours."""

    uri: str
    password: str = field(repr=False)

    @property
    def registry(self) -> str:
        """The host that Docker logs in to."""
        return self.uri.partition("/")[0]


def default_repository(image: str) -> str:
    """Return an image's name without registry, tag and digest.

    >>> default_repository("localhost:5000/team/flowers:3")
    'team/flowers'
    """
    return _parts(image)["name"] or image


def default_tag(image: str) -> str:
    """Return an image's tag.

    >>> default_tag("flowers:3"), default_tag("flowers")
    ('3', 'latest')
    """
    return _parts(image)["tag"] or DEFAULT_TAG


def _parts(image: str) -> Mapping[str, str | None]:
    match = IMAGE.fullmatch(image)
    return match.groupdict() if match else {"name": image, "tag": None}


def find_repository(name: str, region: str | None, *, create: bool) -> Repository:
    """Return a repository, made if it was asked for. Raises `RegistryError`, `RepositoryMissingError`."""
    client = _client(region)
    where = client.meta.region_name
    with _explained(name, where):
        uri = _uri(client, name, create=create)
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    return Repository(uri, base64.b64decode(token).decode("ascii").partition(":")[2])


def _uri(client: Any, name: str, *, create: bool) -> str:
    try:
        return str(client.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"])
    except client.exceptions.RepositoryNotFoundException:
        if not create:
            raise RepositoryMissingError(name, client.meta.region_name) from None
    return str(client.create_repository(repositoryName=name)["repository"]["repositoryUri"])


def push_commands(image: str, uri: str, tags: Sequence[str]) -> list[list[str]]:
    """Return what Docker is asked, after it has been logged in: first all tags, then each push."""
    names = [f"{uri}:{tag}" for tag in tags]
    return [[DOCKER, "tag", image, name] for name in names] + [[DOCKER, "push", name] for name in names]


def push(
    image: str,
    repository: str,
    region: str | None,
    tags: Sequence[str],
    *,
    create: bool,
    on_line: Callable[[str], object],
) -> str:
    """Push an image under all tags, and return the address that an estimator is given, which has the first.

    Raises `RegistryError`, `DockerError`, `DockerNotFoundError`.
    """
    ask([DOCKER, "image", "inspect", "--format", "{{.Id}}", image])  # no repository is made for what is not there
    found = find_repository(repository, region, create=create)
    login = [DOCKER, "login", "--username", REGISTRY_USER, "--password-stdin", found.registry]
    ask(login, secret=found.password)
    for command in push_commands(image, found.uri, tags):
        ask(command, on_line)
    return f"{found.uri}:{tags[0]}"


def _client(region: str | None) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise RegistryError("boto3 is not installed, which talks to ECR. Install mooring[aws].") from error
    from botocore.exceptions import BotoCoreError, NoRegionError

    try:
        return boto3.client("ecr", region_name=region)
    except NoRegionError as error:
        raise RegistryError("No region is set. Give --region, or set AWS_REGION or AWS_DEFAULT_REGION.") from error
    except BotoCoreError as error:  # a profile that is not there, a region that is no name of one
        raise RegistryError(f"ECR cannot be used: {error}") from error


@contextmanager
def _explained(name: str, region: str) -> Iterator[None]:
    """Turn what boto3 raises into what would help."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise RegistryError(
            f"There are no credentials for AWS ({error}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or log in with `aws sso login`."
        ) from error
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        asked = f"ECR in {region} refused {error.operation_name} for repository '{name}': {message} ({code})."
        if code in EXPIRED:
            asked += " The credentials are wrong or have expired; log in again."
        elif code in DENIED:
            asked += f" Ask for the permission ecr:{error.operation_name}."
        raise RegistryError(asked) from error
    except BotoCoreError as error:
        raise RegistryError(f"ECR in {region} cannot be asked for repository '{name}': {error}") from error
