"""Bare torch programs: TorchScript and torch.export, what they may be given, and what is said of other files."""

import io
import json
import pickle
import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mooring.handler.defaults.torch_program import TorchProgramHandler
from mooring.handler.errors import (
    BodyDecodeError,
    ModelLoadError,
    PredictionError,
    PredictionInputError,
    UnsupportedContentTypeError,
)
from mooring.handler.media_types import OPEN_INFERENCE
from mooring.handler.protocol import InferenceRequest
from mooring.handler.terms import LoadTerms


class Lookup(nn.Module):
    """Two named inputs, of which one has to be whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table(ids) * mask.unsqueeze(-1)
        return found


class Several(nn.Module):
    """Outputs in an object, and an error of its own for large inputs."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if bool(x.sum() > 100):
            raise ValueError("/etc/secret is too large")
        return {"double": x * 2, "more": x + 1}


class Doubling(nn.Module):
    """Outputs in an object."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"double": x * 2, "more": x + 1}


class Detecting(nn.Module):
    """Finds in a row the places above zero, however many there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(x > 0)


class Dropping(nn.Module):
    """Leaves half out while it is trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


def script(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]
    return path


def export(path: Path, module: nn.Module, *arguments: torch.Tensor, **named: torch.Tensor) -> Path:
    rows = torch.export.Dim("rows", min=1)
    shapes = {name: {0: rows} for name in ("input", "ids", "mask", "x")}
    names = {"input"} if isinstance(module, nn.Linear) else {"ids", "mask"} if isinstance(module, Lookup) else {"x"}
    dynamic = {name: shape for name, shape in shapes.items() if name in names}
    torch.export.save(torch.export.export(module.eval(), arguments, named, dynamic_shapes=dynamic), path)
    return path


@pytest.fixture(scope="module")
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.fixture(scope="module")
def lookup() -> Lookup:
    return Lookup()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, linear: nn.Linear, lookup: Lookup) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("programs")
    ids = torch.ones(2, 3, dtype=torch.long)
    return {
        "linear.pt": script(root / "linear.pt", linear),
        "linear.pt2": export(root / "linear.pt2", linear, torch.ones(2, 3)),
        "lookup.pt": script(root / "lookup.pt", lookup),
        "lookup.pt2": export(root / "lookup.pt2", lookup, ids, mask=torch.ones(2, 3)),
    }


@pytest.fixture(scope="module")
def handlers(files: dict[str, Path]) -> dict[str, TorchProgramHandler]:
    return {name: TorchProgramHandler.load(file, LoadTerms()) for name, file in files.items()}


def answer(handler: TorchProgramHandler, value: Any, content_type: str = "application/json") -> Any:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    (one,) = handler.respond([InferenceRequest(body, content_type, "", {})])
    if isinstance(one, Exception):
        raise one
    return json.loads(one.body)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["linear.pt", "linear.pt2"])
@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ([[1, 2, 3], [4, 5, 6]], "application/json"),
        ({"inputs": [[1, 2, 3], [4, 5, 6]]}, "application/json"),
        ({"instances": [[1.0, 2, 3], [4, 5, 6]]}, "application/json; charset=utf-8"),
        ({"input": [[1, 2, 3], [4, 5, 6]]}, "application/json"),
        (b"1,2,3\n4,5,6\n", "text/csv"),
        (b"[1,2,3]\n[4,5,6]\n", "application/jsonlines"),
        (npy(np.array([[1, 2, 3], [4, 5, 6]], np.float32)), "application/x-npy"),
        (npz(input=np.array([[1, 2, 3], [4, 5, 6]], np.float32)), "application/x-npz"),
    ],
)
def test_all_bodies_mean_the_same(
    handlers: dict[str, TorchProgramHandler], linear: nn.Linear, name: str, value: Any, content_type: str
) -> None:
    with torch.no_grad():
        expected = linear(torch.tensor([[1.0, 2, 3], [4, 5, 6]])).numpy()
    assert np.allclose(answer(handlers[name], value, content_type), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["linear.pt", "linear.pt2"])
def test_single_row_gets_a_single_answer(handlers: dict[str, TorchProgramHandler], name: str) -> None:
    assert np.allclose(answer(handlers[name], [1, 2, 3]), answer(handlers[name], [[1, 2, 3]])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["linear.pt", "linear.pt2"])
def test_text_takes_no_more_memory_than_the_body(handlers: dict[str, TorchProgramHandler], name: str) -> None:
    """As numpy's own array of text it would take 4 GB: as many times the longest as there are elements."""
    tracemalloc.start()
    try:
        with pytest.raises(PredictionInputError, match="holds text, which"):
            answer(handlers[name], [""] * 30_000 + ["a" * 30_000])
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("row", "places"), [([1, 0, 2], [[0, 0], [0, 2]]), ([0, 0, 0], [])])
def test_all_that_is_found_in_a_row_is_told(tmp_path: Path, row: list[int], places: list[Any]) -> None:
    handler = TorchProgramHandler.load(export(tmp_path / "m.pt2", Detecting(), torch.ones(2, 3)), LoadTerms())
    assert answer(handler, row) == places


@pytest.mark.parametrize("name", ["lookup.pt", "lookup.pt2"])
def test_inputs_go_by_name_and_whole_numbers_stay_whole(
    handlers: dict[str, TorchProgramHandler], lookup: Lookup, name: str
) -> None:
    with torch.no_grad():
        expected = lookup(torch.tensor([[1, 2, 4]]), torch.tensor([[1.0, 0, 1]])).numpy()
    for value in ({"ids": [[1, 2, 4]], "mask": [[1, 0, 1]]}, {"inputs": {"mask": [[1, 0, 1]], "ids": [[1, 2, 4]]}}):
        assert np.allclose(answer(handlers[name], value), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("linear.pt", [[1, 2]]),
        ("linear.pt2", [[1, 2]]),
        ("linear.pt", 7),
        ("linear.pt2", 7),
        ("linear.pt", [[1, 2, 3], [4]]),
        ("linear.pt2", [["a", "b", "c"]]),
        ("linear.pt", [["a", "b", "c"]]),
        ("linear.pt", None),
        ("linear.pt", {}),
        ("linear.pt", {"other": [[1, 2, 3]]}),
        ("linear.pt2", {"other": [[1, 2, 3]]}),
        ("linear.pt", {"input": {"deep": 1}}),
        ("lookup.pt", [[1, 2, 3]]),
        ("lookup.pt", {"ids": [[1, 2, 3]]}),
        ("lookup.pt2", {"ids": [[1, 2, 3]]}),
        ("lookup.pt", {"ids": [[1, 2, 3]], "mask": [[1, 1]]}),
        ("lookup.pt2", {"ids": [[1, 2, 3]], "mask": [[1, 1]]}),
        ("lookup.pt", {"ids": [[1, 2, 99]], "mask": [[1, 1, 1]]}),
        ("lookup.pt2", {"ids": [[1, 2, 99]], "mask": [[1, 1, 1]]}),
        ("lookup.pt", {"ids": [[1.5, 2.5, 3.5]], "mask": [[1, 1, 1]]}),
        ("lookup.pt2", {"ids": [[1.5, 2.5, 3.5]], "mask": [[1, 1, 1]]}),
    ],
)
def test_input_that_does_not_fit_is_the_callers_error(
    handlers: dict[str, TorchProgramHandler], files: dict[str, Path], name: str, value: Any
) -> None:
    with pytest.raises(PredictionInputError) as refused:
        answer(handlers[name], value)
    for word in ("Traceback", ".py", ".cpp", str(files[name].parent)):
        assert word not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "content_type", "error"),
    [
        (b"{", "application/json", BodyDecodeError),
        (b"1,2\n3\n", "text/csv", BodyDecodeError),
        (pickle.dumps([1]), "application/x-npy", BodyDecodeError),
        (b"", "image/png", UnsupportedContentTypeError),
    ],
)
@pytest.mark.parametrize("name", ["linear.pt", "linear.pt2"])
def test_body_that_cannot_be_read_is_the_callers_error(
    handlers: dict[str, TorchProgramHandler], name: str, content: bytes, content_type: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        answer(handlers[name], content, content_type)


def test_error_of_one_request_spoils_no_other(handlers: dict[str, TorchProgramHandler]) -> None:
    bodies = [b"[[1,2,3]]", b"[[1]]", b"[[1,2,3]]"]
    answers = handlers["linear.pt"].respond([InferenceRequest(one, "application/json", "", {}) for one in bodies])
    assert [isinstance(one, Exception) for one in answers] == [False, True, False]


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    handler = TorchProgramHandler.load(script(tmp_path / "model.pt", Several()), LoadTerms())
    assert answer(handler, [1, 2]) == {"double": [2, 4], "more": [2, 3]}


@pytest.mark.parametrize("name", ["several.pt", "several.pt2"])
def test_tensors_by_name_are_answered_with_tensors_by_name(tmp_path: Path, name: str) -> None:
    save = script if name.endswith(".pt") else lambda path, module: export(path, module, torch.ones(2, 1))
    handler = TorchProgramHandler.load(save(tmp_path / name, Doubling()), LoadTerms())
    item = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1, 2]}
    made = answer(handler, {"id": "7", "inputs": [item]}, OPEN_INFERENCE)
    assert made["id"] == "7"
    assert {item["name"]: item["data"] for item in made["outputs"]} == {"double": [2, 4], "more": [2, 3]}


@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_weights_of_large_programs_are_mapped_once_for_all_that_have_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    terms = LoadTerms(variables={"MOORING_MODEL_CACHE": str(tmp_path / "cache")})
    torch.manual_seed(0)
    module = nn.Linear(2048, 2560)
    x = torch.randn(2, 2048)
    handlers = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        with torch.no_grad():
            module.bias.add_(1)
        file = tmp_path / folder / name
        script(file, module) if name.endswith(".pt") else export(file, module, x)
        handlers.append(TorchProgramHandler.load(file, terms))
        with torch.no_grad():
            np.testing.assert_allclose(answer(handlers[-1], x.tolist()), module(x).numpy(), rtol=1e-4, atol=1e-4)
    one, other = (handler.metadata()["weights"] for handler in handlers)
    assert one == other == {file.name: 2048 * 2560 * 4 for file in (tmp_path / "cache").iterdir()}
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path / "cache") in line]
    assert len({line.split()[-1] for line in mapped}) == 1
    for handler in handlers:
        handler.close()


def test_exported_program_tells_its_inputs(handlers: dict[str, TorchProgramHandler]) -> None:
    assert handlers["linear.pt2"].metadata()["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]


def test_error_of_the_programs_own_goes_to_the_log_only(tmp_path: Path) -> None:
    handler = TorchProgramHandler.load(script(tmp_path / "model.pt", Several()), LoadTerms())
    with pytest.raises(PredictionError) as refused:
        answer(handler, [1000])
    assert "secret" not in str(refused.value)


def test_program_saved_while_training_is_not_trained_here(tmp_path: Path) -> None:
    handler = TorchProgramHandler.load(script(tmp_path / "model.pth", Dropping().train()), LoadTerms())
    assert answer(handler, [1.0] * 100) == [1.0] * 100


def test_memory_at_its_end_is_a_memory_error(handlers: dict[str, TorchProgramHandler]) -> None:
    """A row of this many numbers cannot be made; torch says so in a sentence of its own."""
    from mooring.handler.defaults.torch_weights import memory_error

    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert isinstance(memory_error(raised.value), MemoryError)
    assert isinstance(memory_error(torch.OutOfMemoryError("CUDA out of memory")), MemoryError)
    assert memory_error(RuntimeError("shapes cannot be multiplied")) is None


OTHER_FILES: list[tuple[str, Callable[[Path, nn.Module, dict[str, Path]], Any], str]] = [
    ("state.pt", lambda file, module, _: torch.save(module.state_dict(), file), "state_dict.*Save a TorchScript"),
    ("state.pt2", lambda file, module, _: torch.save(module.state_dict(), file), "state_dict"),
    ("whole.pth", lambda file, module, _: torch.save(module, file), "pickled object.*code/inference.py"),
    (
        "old.pt",
        lambda file, module, _: torch.save(module.state_dict(), file, _use_new_zipfile_serialization=False),
        "a pickle of an old torch.save",
    ),
    ("script.pt2", lambda file, _, files: shutil.copy(files["linear.pt"], file), "TorchScript file.*end in .pt"),
    ("export.pt", lambda file, _, files: shutil.copy(files["linear.pt2"], file), "torch.export file.*end in .pt2"),
    ("cut.pt", lambda file, _, files: file.write_bytes(files["linear.pt"].read_bytes()[:900]), "cut short"),
    ("cut.pt2", lambda file, _, files: file.write_bytes(files["linear.pt2"].read_bytes()[:900]), "cut short"),
    ("text.pt", lambda file, *_: file.write_text("hello"), "no file that torch wrote"),
    ("empty.pt", lambda file, *_: file.write_bytes(b""), "no file that torch wrote"),
    ("none.pt", lambda *_: None, "not there"),
]


@pytest.mark.parametrize(("name", "write", "problem"), OTHER_FILES)
def test_file_that_is_no_program_is_told_what_it_is(
    tmp_path: Path, files: dict[str, Path], linear: nn.Linear, name: str, write: Any, problem: str
) -> None:
    write(tmp_path / name, linear, files)
    with pytest.raises(ModelLoadError, match=problem) as refused:
        TorchProgramHandler.load(tmp_path / name, LoadTerms())
    assert str(tmp_path) not in str(refused.value)


def test_pickle_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), tmp_path / "zip.pt2")
    for name in ("zip.pt", "plain.pt", "zip.pt2"):
        with pytest.raises(ModelLoadError):
            TorchProgramHandler.load(tmp_path / name, LoadTerms())
    assert not (tmp_path / "ran").exists()
