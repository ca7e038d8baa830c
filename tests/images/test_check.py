"""`mooring check` on real images: our own, and one that somebody else wrote in an afternoon."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import plain_images
import pytest
from images import Images, build

pytestmark = pytest.mark.slow

MOORING = Path(sys.executable).parent / "mooring"
BASE = "python:3.11-slim-bookworm"
DOCKERFILE = f"""\
FROM {BASE}
COPY --chmod=755 serve /usr/local/bin/serve
CMD ["serve"]
"""


def check(*arguments: str, cwd: Path) -> tuple[int, dict[str, dict[str, str]]]:
    """Run it, and return its exit code and the reasons of rows by outcome and id."""
    command = [str(MOORING), "check", *arguments, "--format", "json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, dict[str, str]] = {"pass": {}, "fail": {}, "not applicable": {}}
    for row in json.loads(done.stdout)["rows"]:
        found[row["outcome"]][row["id"]] = row["reason"]
    return done.returncode, found


def containers(image: str) -> str:
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={image}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def by_hand(images: Images, tmp_path: Path) -> Iterator[str]:
    """An image with a server written by hand."""
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "serve").write_text(plain_images.BY_HAND, encoding="utf-8")
    (folder / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    tag = build("mooring-test:by-hand", source=folder)
    yield tag
    subprocess.run(["docker", "rmi", "--force", tag], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["cpu", "inference"])
def test_our_image_keeps_the_contract(images: Images, tmp_path: Path, name: str) -> None:
    """The one that serves only, too: a script that does without torch is trained there."""
    code, found = check(getattr(images, name), cwd=tmp_path)
    assert found["fail"] == {}
    assert found["not applicable"] == {}
    assert code == 0


def test_server_written_by_hand_is_told_what_it_lacks(by_hand: str, tmp_path: Path) -> None:
    """Nobody else's first process is told of signals that it has not asked for, so it is killed after 30 s."""
    (tmp_path / "row.json").write_text("[1, 2, 3]", encoding="utf-8")
    code, found = check(by_hand, "--request", "row.json", cwd=tmp_path)
    assert code == 1
    assert set(found["fail"]) == {"serving.survives-garbage", "serving.chunked", "serving.stops", "serving.drains"}
    assert "exit code 137" in found["fail"]["serving.stops"]
    assert containers(by_hand) == ""
    assert {"image.other-user", "image.read-only-root", "serving.keeps-to-limits"} <= set(found["pass"])


def test_image_that_does_neither_is_told_so(images: Images, tmp_path: Path) -> None:
    code, found = check(BASE, cwd=tmp_path)
    assert code == 1
    assert set(found["fail"]) == {"image.commands"}
    assert "neither train nor serve" in found["fail"]["image.commands"]
