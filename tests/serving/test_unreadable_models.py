"""Models whose files the server's user may not read: it says which, and what would help."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers as hf
import transformers_models
from denials import OWNER, WITHOUT_RIGHTS, deny
from models import code_model, layered_model, scale_model
from servers import RunningServer, Servers

ASKS_FOR_ANOTHER_FILE = """
def model_fn(folder): return open(folder + "/weights.bin").read()
def transform_fn(model, body, content_type, accept): return model, accept
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mooring-test-"))
    yield made
    for path in made.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(start_server: Servers, folder: Path) -> RunningServer:
    return start_server(folder, command=WITHOUT_RIGHTS)


def onnx(folder: Path) -> tuple[Path, str]:
    return scale_model(folder) / "model.onnx", "model.onnx"


def large_onnx(folder: Path) -> tuple[Path, str]:
    return layered_model(folder, 5) / "model.onnx", "model.onnx"


def weights(folder: Path) -> tuple[Path, str]:
    return transformers_models.bert(folder, hf.BertForSequenceClassification) / "model.safetensors", "model.safetensors"


def tokenizer(folder: Path) -> tuple[Path, str]:
    return transformers_models.bert(folder, hf.BertForSequenceClassification) / "tokenizer.json", "tokenizer.json"


def config(folder: Path) -> tuple[Path, str]:
    return transformers_models.bert(folder, hf.BertForSequenceClassification) / "config.json", "config.json"


def exported(folder: Path) -> tuple[Path, str]:
    folder.mkdir()
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, folder / "model.pt2")
    return folder / "model.pt2", "model.pt2"


def code(folder: Path) -> tuple[Path, str]:
    return code_model(folder, "") / "code/inference.py", "code/inference.py"


def folder_of_code(folder: Path) -> tuple[Path, str]:
    return code_model(folder, "") / "code", "code"


def file_that_code_opens(folder: Path) -> tuple[Path, str]:
    (code_model(folder, ASKS_FOR_ANOTHER_FILE) / "weights.bin").write_text('"read"')
    return folder / "weights.bin", "weights.bin"


def settings(folder: Path) -> tuple[Path, str]:
    (scale_model(folder) / "mooring.toml").touch()
    return folder / "mooring.toml", "mooring.toml"


def whole_folder(folder: Path) -> tuple[Path, str]:
    return scale_model(folder), folder.name


def archive(folder: Path) -> tuple[Path, str]:
    file = folder.with_suffix(".tar.gz")
    with tarfile.open(file, "w:gz") as packed:
        packed.add(scale_model(folder) / "model.onnx", "model.onnx")
    shutil.rmtree(folder)
    return file, file.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        *(onnx, large_onnx, weights, tokenizer, config, exported),
        *(code, folder_of_code, file_that_code_opens, settings, whole_folder, archive),
    ],
)
def test_file_that_may_not_be_read_is_named_with_what_would_help(
    server: RunningServer, folder: Path, write: Callable[[Path], tuple[Path, str]]
) -> None:
    denied, shown = write(folder / write.__name__)
    deny(denied)
    url = folder / write.__name__ if (folder / write.__name__).exists() else denied
    answer = server.load(write.__name__, url)
    assert answer.status_code == 500, answer.text
    message = answer.json()["message"]
    owner = f"owner uid {OWNER}"
    assert f"this process runs as uid {os.getuid()} and may not read {shown} (mode " in message
    assert owner in message
    assert "chmod -R a+rX" in message
    assert str(folder) not in message
    denied.chmod(0o755)
    if write not in (code, folder_of_code):  # these hold no model
        assert server.load(write.__name__, url).status_code == 200, server.log.read_text()


def test_file_that_nobody_needs_keeps_no_model_from_being_served(server: RunningServer, folder: Path) -> None:
    (scale_model(folder / "beside") / "notes.txt").touch()
    deny(folder / "beside/notes.txt")
    assert server.load("beside", folder / "beside").status_code == 200
    assert server.invoke("beside", [[1, 2, 3]]).json() == [[2, 4, 6]]


def test_other_failures_beside_such_a_file_keep_their_own_words(server: RunningServer, folder: Path) -> None:
    (scale_model(folder / "damaged") / "model.onnx").write_bytes(b"damaged")
    (folder / "damaged/notes.txt").touch()
    deny(folder / "damaged/notes.txt")
    assert "model.onnx cannot be loaded" in server.load("damaged", folder / "damaged").json()["message"]


def test_all_that_may_not_be_read_is_named_at_once(server: RunningServer, folder: Path) -> None:
    (scale_model(folder / "several") / "weights.data").touch()
    for name in ("model.onnx", "weights.data"):
        deny(folder / "several" / name)
    message = server.load("several", folder / "several").json()["message"]
    assert message.index("model.onnx (mode") < message.index("weights.data (mode")
