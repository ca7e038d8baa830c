"""Which handler a folder gets, by its names alone: nothing here is a model that could be loaded."""

import json
from pathlib import Path

import pytest

from mooring.handler.errors import ModelFolderError
from mooring.handler.resolve import Backend, HandlerKind, Isolation, choose_handler, passed_over

CLASSIFIER = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]})
MANIFEST = json.dumps({"model": {"handler": "service.py:handle"}})


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("files", "variables", "kind", "isolation", "backend"),
    [
        ({"model.onnx": ""}, {}, HandlerKind.ONNX, Isolation.SHARED, Backend.ONNX),
        ({"any.onnx": "", "any.onnx.data": ""}, {}, HandlerKind.ONNX, Isolation.SHARED, Backend.ONNX),
        ({"model.onnx": "", "other.onnx": ""}, {}, HandlerKind.ONNX, Isolation.SHARED, Backend.ONNX),
        ({"model.pt2": ""}, {}, HandlerKind.EXPORTED, Isolation.OWN, Backend.TORCH),
        ({"model.pt": ""}, {}, HandlerKind.TORCHSCRIPT, Isolation.OWN, Backend.TORCH),
        ({"model.pth": ""}, {}, HandlerKind.TORCHSCRIPT, Isolation.OWN, Backend.TORCH),
        (
            {"model.pt": ""},
            {"MOORING_TRUST_TORCH_PROGRAMS": "1"},
            HandlerKind.TORCHSCRIPT,
            Isolation.SHARED,
            Backend.TORCH,
        ),
        (
            {"config.json": CLASSIFIER, "model.safetensors": ""},
            {},
            HandlerKind.TRANSFORMERS,
            Isolation.SHARED,
            Backend.TRANSFORMERS,
        ),
        # An export beside what it was made from; the weights alone would name no task.
        (
            {"model.onnx": "", "config.json": "{}", "model.safetensors": ""},
            {},
            HandlerKind.ONNX,
            Isolation.SHARED,
            Backend.ONNX,
        ),
        ({"code/inference.py": "", "model.onnx": ""}, {}, HandlerKind.FUNCTIONS, Isolation.OWN, Backend.ONNX),
        ({"code/inference.py": "import torch"}, {}, HandlerKind.FUNCTIONS, Isolation.OWN, Backend.TORCH),
        (
            {"code/inference.py": "from transformers import pipeline"},
            {},
            HandlerKind.FUNCTIONS,
            Isolation.OWN,
            Backend.TRANSFORMERS,
        ),
        (
            {"code/mine.py": "", "code/inference.py": ""},
            {"SAGEMAKER_PROGRAM": "mine.py"},
            HandlerKind.FUNCTIONS,
            Isolation.OWN,
            Backend.ONNX,
        ),
        ({"mine.py": ""}, {"SAGEMAKER_PROGRAM": "mine.py"}, HandlerKind.FUNCTIONS, Isolation.OWN, Backend.ONNX),
        (
            {"service.py": "", "MAR-INF/MANIFEST.json": MANIFEST, "model.onnx": ""},
            {},
            HandlerKind.SERVICE,
            Isolation.OWN,
            Backend.ONNX,
        ),
        (
            {"service.py": "", "model.onnx": ""},
            {"SAGEMAKER_HANDLER": "service.py:handle"},
            HandlerKind.SERVICE,
            Isolation.OWN,
            Backend.ONNX,
        ),
    ],
)
def test_names_decide(
    tmp_path: Path,
    files: dict[str, str],
    variables: dict[str, str],
    kind: HandlerKind,
    isolation: Isolation,
    backend: Backend,
) -> None:
    chosen = choose_handler(folder(tmp_path, files), variables)
    assert (chosen.kind, chosen.isolation, chosen.backend) == (kind, isolation, backend)


def test_folder_inside_the_folder_is_looked_through(tmp_path: Path) -> None:
    folder(tmp_path, {"outer/model.onnx": "12345", "__MACOSX/x": "", ".DS_Store": ""})
    chosen = choose_handler(tmp_path, {})
    assert (chosen.root, chosen.artifact_bytes) == (tmp_path / "outer", 5)


@pytest.mark.parametrize("name", ["resnet.onnx", "resnet.pt", "resnet.pth", "resnet.pt2"])
def test_hidden_file_beside_a_model_is_none(tmp_path: Path, name: str) -> None:
    chosen = choose_handler(folder(tmp_path, {name: "12345", f"._{name}": "", "._mooring.toml": ""}), {})
    assert chosen.files == (tmp_path / name,)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no .onnx file"),
        ({"a.onnx": "", "b.onnx": ""}, "2 .onnx files and none is called model.onnx"),
        ({"model.safetensors": ""}, "no config.json"),
        ({"config.json": "{}", "model.safetensors": ""}, "task"),
        ({"MAR-INF/MANIFEST.json": "{"}, "MANIFEST.json is no JSON"),
    ],
)
def test_folder_without_a_model_is_told_what_was_looked_for_and_found(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelFolderError) as raised:
        choose_handler(folder(tmp_path, files), {})
    assert words.replace("*", "") in str(raised.value).replace("*", "")
    assert all(name in str(raised.value) for name in files if "MANIFEST" not in name)


def test_other_rules_say_why_they_did_not_choose(tmp_path: Path) -> None:
    files = {"model.onnx": "", "model.pt": "", "config.json": "{}", "model.safetensors": ""}
    chosen = choose_handler(folder(tmp_path, files), {})
    said = list(passed_over(chosen, {}))
    assert len(said) == 5
    assert "it holds model.pt and no code, but the other comes first" in said
    assert any("task" in words for words in said)


def test_packages_of_a_model_with_code_are_its_own(tmp_path: Path) -> None:
    files = {"code/inference.py": "", "code/requirements.txt": "", "requirements.txt": ""}
    assert choose_handler(folder(tmp_path, files), {}).requirements == tmp_path / "code/requirements.txt"
    data = folder(tmp_path / "data", {"model.onnx": "", "requirements.txt": ""})
    assert choose_handler(data, {}).requirements is None
