"""The images under test, built once by the first test that needs one."""

import fcntl
import os
import shlex
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

SOURCE = Path(__file__).parents[2]
# More words for `docker build`, such as --build-context wheels=DIR where an index is out of reach.
FLAGS_VARIABLE = "MOORING_BUILD_FLAGS"
# Where this is set, a missing engine fails the tests: they are not to be skipped unseen.
REQUIRED_VARIABLE = "MOORING_REQUIRE_DOCKER"
BUILD_TIMEOUT_S = 1500
VERSION = "0.0.test"


def engine_answers() -> bool:
    """Whether a docker command is here and its engine answers."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def build(tag: str, *options: str, source: Path = SOURCE) -> str:
    """Build an image and return its tag. One at a time on a machine: a second finds the first one's layers."""
    command = ["docker", "build", "--tag", tag, *shlex.split(os.environ.get(FLAGS_VARIABLE, "")), *options, str(source)]
    with (Path(tempfile.gettempdir()) / "mooring-image-builds.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_TIMEOUT_S
        )
    assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return tag


class Images:
    """Tags of our images, each built when it is first asked for."""

    @cached_property
    def cpu(self) -> str:
        """Trains and serves."""
        return _ours("cpu", "training")

    @cached_property
    def inference(self) -> str:
        """Only serves, without torch."""
        return _ours("cpu", "inference")

    @cached_property
    def mms(self) -> str:
        """Serves with multi-model-server."""
        return _ours("cpu", "inference-mms")

    @cached_property
    def gpu(self) -> str:
        """The GPU image; with the CPU's wheel of torch where the build is given one."""
        return _ours("gpu", "training")


def _ours(device: str, target: str) -> str:
    tag = f"mooring-test:{device}-{target}"
    return build(
        tag, "--file", str(SOURCE / f"Dockerfile.{device}"), "--target", target, "--build-arg", f"VERSION={VERSION}"
    )
