"""What the images hold and declare: checked in the images themselves."""

import json
from collections.abc import Callable

import pytest
from containers import docker, said
from images import VERSION, Images

MB = 1_000_000
ALL: list[Callable[[Images], str]] = [lambda i: i.inference, lambda i: i.cpu, lambda i: i.mms, lambda i: i.gpu]
NAMES = ["inference", "training", "inference-mms", "gpu training"]
every_image = pytest.mark.parametrize("of", ALL, ids=NAMES)
# Of all files below a folder those that some uid could not read, or enter.
UNREADABLE = "find {0} ( -type f ! -perm -o=r -o -type d ! -perm -o=rx ) -print"


def inspected(image: str) -> dict[str, object]:
    (found,) = json.loads(docker("image", "inspect", image))
    config: dict[str, object] = found["Config"]
    return config | {"Size": found["Size"]}


@every_image
def test_labels_tell_the_platform_what_the_image_can_do_and_people_what_it_is(
    images: Images, of: Callable[[Images], str]
) -> None:
    config = inspected(of(images))
    labels = config["Labels"]
    assert isinstance(labels, dict)
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["org.opencontainers.image.title"] == "Mooring"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    # Exec form, and nothing between the engine and the command.
    assert config["Cmd"] in (["serve"], ["train"])
    assert config.get("Entrypoint") is None


@every_image
def test_commands_of_the_platform_and_of_sdk_v3_are_on_the_path(images: Images, of: Callable[[Images], str]) -> None:
    wanted = ["train", "serve", "mooring", "bash", "python3", "pip"]
    found = said(of(images), "bash", "-c", f"command -v {' '.join(wanted)} torchrun tini nvidia-smi || true").split()
    names = [path.rpartition("/")[2] for path in found]
    assert names[: len(wanted)] == wanted
    assert "tini" not in names
    assert "nvidia-smi" not in names
    assert ("torchrun" in names) == ("training" in of(images))


@every_image
def test_packages_agree_and_there_is_one_onnxruntime(images: Images, of: Callable[[Images], str]) -> None:
    assert "No broken requirements" in said(of(images), "pip", "check")
    listed = json.loads(said(of(images), "pip", "list", "--format", "json"))
    runtimes = [package["name"] for package in listed if package["name"].startswith("onnxruntime")]
    assert runtimes == ["onnxruntime-gpu" if "gpu" in of(images) else "onnxruntime"]


@every_image
def test_files_are_readable_by_whatever_uid_runs_the_image(images: Images, of: Callable[[Images], str]) -> None:
    assert said(of(images), *UNREADABLE.format("/opt").split()) == ""


@pytest.mark.parametrize(("of", "most"), [(ALL[0], 450 * MB), (ALL[1], 1400 * MB)], ids=NAMES[:2])
def test_image_is_no_larger_than_promised(images: Images, of: Callable[[Images], str], most: int) -> None:
    size = inspected(of(images))["Size"]
    assert isinstance(size, int)
    assert size <= most, f"{size / MB:.0f} MB"


def test_any_other_command_is_passed_through(images: Images) -> None:
    assert said(images.inference, "python3", "-c", "print('so ' + 'it is')") == "so it is\n"
    assert said(images.inference, "bash", "-c", "echo $((40 + 2))") == "42\n"
