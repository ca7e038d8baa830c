"""Objects in S3. boto3 is imported when the first of them is asked for; nothing else here needs it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mooring.contract.errors import PlatformError

from .publish import publish_file

SCHEME = "s3://"


class StoreError(PlatformError):
    """An object cannot be fetched or written."""

    def __init__(self, uri: str, problem: str, *, done: str = "fetched") -> None:
        self.uri = uri
        self.problem = problem
        super().__init__(f"{uri} cannot be {done}: {problem}")


def is_s3(location: str) -> bool:
    """Whether a location is an object in S3."""
    return location.startswith(SCHEME)


def fetch(uri: str, path: Path, variables: Mapping[str, str]) -> None:
    """Download an object to a file that appears when it is whole. S3_ENDPOINT_URL and AWS_REGION are honoured.

    Raises `StoreError`: what is not there, not allowed, not reachable, or not an s3:// address of an object.
    """
    bucket, key = bucket_and_key(uri)
    with _translated(uri, "fetched", variables) as client, publish_file(path) as beside:
        client.download_file(bucket, key, str(beside))


def send(path: Path, uri: str, variables: Mapping[str, str], on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Upload a file. S3_ENDPOINT_URL and AWS_REGION are honoured; `on_bytes` hears of progress, from other threads.

    Raises `StoreError`.
    """
    bucket, key = bucket_and_key(uri)
    with _translated(uri, "written", variables) as client:
        client.upload_file(str(path), bucket, key, Callback=on_bytes)


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return the two parts of an object's address. Raises `StoreError` where one is missing."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not bucket or not key:
        raise StoreError(uri, "expected s3://bucket/key", done="used")
    return bucket, key


@contextmanager
def _translated(uri: str, done: str, variables: Mapping[str, str]) -> Iterator[Any]:
    """Give a client, whose errors become ours."""
    client = _client(uri, variables)
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield client
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise StoreError(uri, str(error), done=done) from error


def _client(uri: str, variables: Mapping[str, str]) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise StoreError(uri, "boto3 is not installed; install mooring[aws]", done="reached") from error
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
    return boto3.client("s3", region_name=region, endpoint_url=variables.get("S3_ENDPOINT_URL"))
