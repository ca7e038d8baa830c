"""The locks of the images: every package in one version, the one the tests ran with, and by hash."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker/requirements"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.txt") if path.stem != "constraints")
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+?)(?: ; .*?)?(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.MULTILINE,
)
PINNED = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
# Installed in layers of their own, beside these.
APART = {"torch"}


def entries(lock: str) -> dict[str, str]:
    text = "\n".join(line for line in (FOLDER / f"{lock}.txt").read_text().splitlines() if not line.startswith("#"))
    found = list(ENTRY.finditer(text))
    # Nothing but entries: what remains without them is empty.
    assert ENTRY.sub("", text).strip() == ""
    assert len({entry["name"] for entry in found}) == len(found)
    return {entry["name"]: entry["version"] for entry in found}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_there_is_a_lock_for_each_layer_of_the_images() -> None:
    named = set()
    for device in ("cpu", "gpu"):
        named |= set(re.findall(r"requirements/([\w-]+)\.txt", (ROOT / f"Dockerfile.{device}").read_text()))
    assert sorted(named) == LOCKS


@pytest.mark.parametrize("lock", LOCKS)
def test_versions_are_those_that_the_tests_ran_with(lock: str) -> None:
    constrained = {
        normalized(name): version for name, version in PINNED.findall((FOLDER / "constraints.txt").read_text())
    }
    for name, version in entries(lock).items():
        assert constrained.get(name, version) == version, name


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("inference-cpu", ["serving", "audio"]),
        ("inference-gpu", ["serving", "audio", "gpu"]),
        ("training-cpu", ["training", "transformers", "serving", "audio"]),
        ("training-gpu", ["training", "transformers", "serving", "audio", "gpu"]),
    ],
)
def test_lock_has_everything_its_extras_ask_for_and_one_onnxruntime(lock: str, extras: list[str]) -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {normalized(re.split(r"[\[><=]", wish)[0]) for extra in extras for wish in asked[extra]}
    wanted = {name for name in names if name != "mooring"} - APART
    if lock.endswith("gpu"):
        wanted.discard("onnxruntime")
    held = entries(lock).keys()
    assert wanted <= held
    assert len({"onnxruntime", "onnxruntime-gpu"} & held) == 1
    if lock.startswith("training"):  # they have a layer of their own, which the CPU build of torch does without
        assert not {name for name in held if name.startswith(("nvidia", "cuda", "triton"))}


def test_dockerfiles_differ_in_nothing_but_the_device() -> None:
    def instructions(device: str) -> list[str]:
        lines = (ROOT / f"Dockerfile.{device}").read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    cpu, gpu = instructions("cpu"), instructions("gpu")
    differing = {line.replace("-cpu", "-gpu") for line in cpu}.symmetric_difference(gpu)
    assert all(re.search(r"torch|cuda|TORCH|\$from|wheels", line) for line in differing), differing
