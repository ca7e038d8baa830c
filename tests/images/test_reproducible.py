"""Two builds of one commit hold the same files: every path, every mode, every byte."""

import subprocess
import uuid
from collections.abc import Iterator

import pytest
from image_files import differences, image_files
from images import SOURCE, Images, build


@pytest.fixture
def tag() -> Iterator[str]:
    """A name for an image that is gone afterwards."""
    name = f"mooring-test:{uuid.uuid4().hex}"
    yield name
    subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_builds_of_one_commit_hold_the_same_files(images: Images, tag: str) -> None:
    """The second uses no layer of the first, only what pip had downloaded."""
    first = image_files(images.inference)
    build(tag, "--no-cache", "--file", str(SOURCE / "Dockerfile.cpu"), "--target", "inference")
    assert len(first) > 1000
    assert differences(first, image_files(tag)) == []
