"""A user's functions, called as the earlier toolkits called them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.handler.errors import HandlerError, ModelFolderError
from mooring.handler.functions import FunctionHandler
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.resolve import HandlerKind, Isolation, choose_handler, model_root
from mooring.handler.service import load_user_code
from mooring.handler.terms import LoadTerms


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """A handler's code lives in a process of its own; here it has to leave this one as it was."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("inference", None)


def load(base: Path, code: str) -> FunctionHandler:
    (base / "code").mkdir()
    script = base / "code/inference.py"
    script.write_text(code, encoding="utf-8")
    handler = load_user_code(script, base, LoadTerms())
    assert isinstance(handler, FunctionHandler)
    return handler


def ask(
    handler: FunctionHandler, body: bytes = b"[1, 2]", content_type: str = "application/json", accept: str = ""
) -> InferenceResponse:
    (only,) = handler.respond([InferenceRequest(body, content_type, accept, {"x-custom": "42"})])
    if isinstance(only, Exception):
        raise only
    return only


def test_steps_are_called_in_order_with_their_arguments(tmp_path: Path) -> None:
    handler = load(
        tmp_path,
        "def model_fn(model_dir): return ['model']\n"
        "def input_fn(body, content_type): return [body, content_type]\n"
        "def predict_fn(data, model): return data + model\n"
        "def output_fn(prediction, accept): return repr([*prediction, accept]), 'text/plain'\n",
    )
    answer = ask(handler, b"hello", "text/csv", "text/plain")
    assert answer.body == b"['hello', 'text/csv', 'model', 'text/plain']"
    assert answer.content_type == "text/plain"


def test_defaults_fill_in_what_is_not_defined(tmp_path: Path) -> None:
    handler = load(tmp_path, "def model_fn(model_dir): return lambda data: data * 2\n")
    assert ask(handler).body == b"[2,4]"
    assert ask(handler, b"1,2\n", "text/csv", "text/csv").body == b"2,4\n"


def test_binary_bodies_are_bytes_and_text_bodies_are_text(tmp_path: Path) -> None:
    handler = load(
        tmp_path,
        "def model_fn(model_dir): return None\n"
        "def transform_fn(model, body, content_type, accept): return type(body).__name__, 'text/plain'\n",
    )
    assert ask(handler, b"1", "text/csv").body == b"str"
    assert ask(handler, b"1", "application/octet-stream").body == b"bytes"


def test_context_is_given_to_functions_that_take_one_more_argument(tmp_path: Path) -> None:
    handler = load(
        tmp_path,
        "def model_fn(model_dir, context): return context.system_properties['model_dir'] == model_dir\n"
        "def transform_fn(model, body, content_type, accept, context):\n"
        "    context.set_response_header(0, 'X-Answer', 'yes')\n"
        "    context.set_response_status(201)\n"
        "    return [model, context.get_request_header(0, 'X-Custom')]\n",
    )
    answer = ask(handler)
    assert answer.body == b'[true,"42"]'
    assert (answer.status, answer.headers) == (201, {"x-answer": "yes"})


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("x = 1\n", "defines neither functions such as model_fn"),
        ("def model_fn(): pass\n", r"model_fn takes 0 arguments; expected model_fn\(model_dir\)"),
        ("def model_fn(d): 1/0\n", "model_fn raised ZeroDivisionError; the server's log"),
        ("import no_such_module\n", "Importing inference.py raised ModuleNotFoundError"),
        (
            "def model_fn(d): pass\ndef transform_fn(m, b, c, a): pass\ndef input_fn(b, c): pass\n",
            "transform_fn takes the place of input_fn",
        ),
    ],
)
def test_code_that_cannot_serve_is_explained(tmp_path: Path, code: str, problem: str) -> None:
    with pytest.raises(HandlerError, match=problem):
        load(tmp_path, code)


def test_what_user_code_raises_stays_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler = load(tmp_path, "def model_fn(d): return 1\ndef predict_fn(data, model): raise ValueError('the secret')\n")
    with pytest.raises(HandlerError, match="predict_fn raised ValueError") as told:
        ask(handler)
    assert "the secret" not in str(told.value)
    assert "the secret" in caplog.text


# --- which handler ----------------------------------------------------------------------------------------------------


def folder(base: Path, *names: str) -> Path:
    for name in names:
        file = base / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return base


def test_code_decides_and_gets_its_own_process(tmp_path: Path) -> None:
    choice = choose_handler(folder(tmp_path, "model.onnx", "code/inference.py"), {})
    assert (choice.kind, choice.isolation) == (HandlerKind.FUNCTIONS, Isolation.OWN)


def test_training_script_is_not_taken_for_a_handler(tmp_path: Path) -> None:
    choice = choose_handler(folder(tmp_path, "model.onnx", "train.py"), {})
    assert (choice.kind, choice.isolation) == (HandlerKind.ONNX, Isolation.SHARED)


def test_model_onnx_is_preferred_and_a_single_other_name_will_do(tmp_path: Path) -> None:
    assert choose_handler(folder(tmp_path / "a", "x.onnx", "model.onnx"), {}).files[0].name == "model.onnx"
    assert choose_handler(folder(tmp_path / "b", "x.onnx"), {}).files[0].name == "x.onnx"


def test_outer_folder_of_an_archive_is_looked_through(tmp_path: Path) -> None:
    assert model_root(folder(tmp_path, "my-model/model.onnx")) == tmp_path / "my-model"
    assert choose_handler(tmp_path, {}).kind is HandlerKind.ONNX


@pytest.mark.parametrize(
    ("names", "variables", "problem"),
    [
        ((), {}, "Nothing here is a model: .*no code/inference.py.*Found: nothing"),
        (("a.onnx", "b.onnx"), {}, r"2 \*.onnx files and none is called model.onnx"),
        (("model.onnx", "code/other.py"), {"SAGEMAKER_PROGRAM": "serve.py"}, "script serve.py is named but not there"),
    ],
)
def test_folder_that_cannot_be_served_says_what_was_looked_for(
    tmp_path: Path, names: tuple[str, ...], variables: dict[str, str], problem: str
) -> None:
    with pytest.raises(ModelFolderError, match=problem):
        choose_handler(folder(tmp_path, *names), variables)
