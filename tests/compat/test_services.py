"""Handler classes written for the earlier toolkits and servers, loaded and asked as a host does it."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from mooring.handler.errors import HandlerError
from mooring.handler.load import load_handler
from mooring.handler.protocol import Handler, InferenceRequest, InferenceResponse
from mooring.handler.resolve import choose_handler
from mooring.handler.terms import LoadTerms

pytestmark = [
    pytest.mark.usefixtures("serving"),
    # torch says so itself, of the only way to load what users' archives hold.
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

# A handler service as the toolkits' documentation has it, with steps of its own.
OWN_STEPS = """
from sagemaker_inference import content_types, decoder, default_inference_handler, encoder, errors
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.transformer import Transformer

class Steps(default_inference_handler.DefaultInferenceHandler):
    def default_model_fn(self, model_dir):
        return 2
    def default_input_fn(self, input_data, content_type):
        return decoder.decode(input_data, content_type)
    def default_predict_fn(self, data, model, context=None):
        if context.get_request_header(0, "X-Refuse"):
            raise errors.BaseInferenceToolkitError(418, "I am a teapot", "teapot")
        return data * model
    def default_output_fn(self, prediction, accept):
        return encoder.encode(prediction, accept)

class HandlerService(DefaultHandlerService):
    def __init__(self):
        super().__init__(transformer=Transformer(default_inference_handler=Steps()))
"""


def load(folder: Path, files: dict[str, str], variables: dict[str, str] | None = None) -> Handler:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    choice = choose_handler(folder, variables or {})
    return load_handler(choice, LoadTerms(variables=variables or {}, config=choice.config))


def request(
    body: bytes = b"[1, 2]", content_type: str = "application/json", accept: str = "application/json", **headers: str
) -> InferenceRequest:
    sent = {"content-type": content_type, "accept": accept} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return InferenceRequest(body, content_type, accept, {name: value for name, value in sent.items() if value})


def ask(handler: Handler, asked: InferenceRequest | None = None) -> InferenceResponse:
    (answer,) = handler.respond([asked or request()])
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_handler_service_of_ones_own_answers(tmp_path: Path) -> None:
    handler = load(tmp_path, {"code/handler_service.py": OWN_STEPS}, {"SAGEMAKER_HANDLER": "handler_service:handle"})
    answer = ask(handler)
    assert (answer.status, answer.body, answer.content_type) == (200, b"[2, 4]", "application/json")
    table = ask(handler, request(b"1\n2\n", "text/csv", "text/csv"))
    assert (table.body, table.content_type) == (b"2\n4\n", "text/csv")


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        (request(x_refuse="yes"), 418, "I am a teapot"),
        (request(b"x", "image/png"), 415, "Content type image/png is not supported"),
        (request(accept="image/png"), 415, "Content type image/png is not supported"),
        (request(b"[1,"), 400, "cannot be read as application/json"),
        (request(b"\xff"), 400, "cannot be read as application/json"),
        (request(b'{"a": 1}'), 500, "raised TypeError"),
    ],
)
def test_errors_of_a_service_have_a_status_and_no_traceback(
    tmp_path: Path, asked: InferenceRequest, status: int, text: str
) -> None:
    handler = load(tmp_path, {"code/handler_service.py": OWN_STEPS}, {"SAGEMAKER_HANDLER": "handler_service:handle"})
    answer = ask(handler, asked)
    assert answer.status == status
    assert text in answer.body.decode()
    assert b"Traceback" not in answer.body


def test_script_that_holds_only_a_service_needs_no_variable(tmp_path: Path) -> None:
    assert ask(load(tmp_path, {"code/inference.py": OWN_STEPS})).body == b"[2, 4]"


def test_users_functions_take_the_place_of_the_handlers(tmp_path: Path) -> None:
    files = {
        "code/handler_service.py": OWN_STEPS,
        "code/inference.py": "def predict_fn(data, model): return data + model\n",
    }
    assert ask(load(tmp_path, files, {"SAGEMAKER_HANDLER": "handler_service:handle"})).body == b"[3, 4]"


def test_failing_load_is_not_swallowed(tmp_path: Path) -> None:
    broken = OWN_STEPS.replace("return 2", "raise OSError('gone')")
    with pytest.raises(HandlerError, match="OSError"):
        load(tmp_path, {"code/inference.py": broken})


def test_each_request_of_a_batch_has_its_own_headers_and_error(tmp_path: Path) -> None:
    files = {"code/handler_service.py": OWN_STEPS, "mooring.toml": "[batching]\nmax_rows = 4\n"}
    handler = load(tmp_path, files, {"SAGEMAKER_HANDLER": "handler_service:handle"})
    assert handler.max_batch_rows == 4
    answers = handler.respond(
        [request(), request(b"5\n6\n", "text/csv", "text/csv"), request(x_refuse="yes"), request(b"[", accept="")]
    )
    assert not any(isinstance(answer, Exception) for answer in answers)
    told = [(a.status, a.body, a.content_type) for a in answers if isinstance(a, InferenceResponse)]
    assert told[0] == (200, b"[2, 4]", "application/json")
    assert told[1] == (200, b"10\n12\n", "text/csv")
    assert told[2] == (418, b"I am a teapot", "text/plain")
    assert told[3][0] == 400


def test_default_accept_is_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
    handler = load(tmp_path, {"code/inference.py": OWN_STEPS})
    for accept in ("", "*/*"):
        assert ask(handler, request(accept=accept)).content_type == "text/csv"


# --- the toolkits' names in functions ---------------------------------------------------------------------------------


def test_functions_use_the_toolkits_codecs_and_errors(tmp_path: Path) -> None:
    handler = load(
        tmp_path,
        {
            "code/inference.py": """
from sagemaker_inference import content_types, decoder, encoder
from sagemaker_huggingface_inference_toolkit import decoder_encoder
from sagemaker_training import environment, params
from mms.service import PredictionException

def model_fn(model_dir): return None
def input_fn(body, content_type): return decoder.decode(body, content_type)
def predict_fn(data, model):
    if data.sum() < 0: raise PredictionException("below zero", 422)
    return data
def output_fn(prediction, accept): return encoder.encode(prediction, accept), accept
"""
        },
    )
    assert ask(handler).body == b"[1, 2]"
    for body, content_type, status in ((b"[-1]", "application/json", 422), (b"x", "image/png", 415)):
        (error,) = handler.respond([request(body, content_type)])
        assert getattr(error, "status", None) == status


def test_context_made_by_hand_is_the_servers() -> None:
    context = importlib.import_module("mms.context")
    made = context.Context("name", "/model", {}, 1, -1, "1.1.11")
    made.request_processor = [context.RequestProcessor({"Accept": "a/b"})]
    made.set_response_status(404, "gone")
    made.set_response_content_type(0, "c/d")
    assert made.system_properties["gpu_id"] == -1
    assert made.get_request_header(0, "Accept") == "a/b"
    assert made.get_response_status(0) == (404, "gone")
    assert made.get_response_headers(0) == {"content-type": "c/d"}


# --- with torch -------------------------------------------------------------------------------------------------------


def save_double(file: Path) -> None:
    """Write a TorchScript model that doubles."""
    torch = importlib.import_module("torch")

    class Double(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: object) -> object:
            return x * 2  # type: ignore[operator]

    torch.jit.trace(Double(), torch.zeros(2)).save(str(file))


def test_pytorch_toolkits_service_serves_torchscript(tmp_path: Path) -> None:
    save_double(tmp_path / "model.pt")
    variables = {"SAGEMAKER_HANDLER": "sagemaker_pytorch_serving_container.handler_service:handle"}
    handler = load(tmp_path, {"code/other.py": ""}, variables)
    assert json.loads(ask(handler, request(b"[1, 2.5]")).body) == [2.0, 5.0]
    assert ask(handler, request(b"1.5,2\n", "text/csv", "text/csv")).body == b"3.0\n4.0\n"
    array = importlib.import_module("sagemaker_inference.encoder").encode(
        np.array([1, 2], dtype=np.float32), "application/x-npy"
    )
    assert json.loads(ask(handler, request(array, "application/x-npy")).body) == [2.0, 4.0]
    answer = ask(handler, request(accept="text/plain, text/csv"))
    assert (answer.body, answer.content_type) == (b"2.0\n4.0\n", "text/csv")
    assert ask(handler, request(b'["a"]')).status == 400


def test_pytorch_defaults_are_inherited(tmp_path: Path) -> None:
    save_double(tmp_path / "only.pth")
    code = """
from sagemaker_inference.transformer import Transformer
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_pytorch_serving_container.default_pytorch_inference_handler import DefaultPytorchInferenceHandler

class Steps(DefaultPytorchInferenceHandler):
    def default_predict_fn(self, data, model):
        return super().default_predict_fn(data, model) + 1

class HandlerService(DefaultHandlerService):
    def __init__(self):
        super().__init__(transformer=Transformer(default_inference_handler=Steps()))
"""
    assert json.loads(ask(load(tmp_path, {"code/inference.py": code})).body) == [3.0, 5.0]


@pytest.mark.parametrize("names", [(), ("a.pt", "b.pth")])
def test_pytorch_default_needs_one_model(tmp_path: Path, names: tuple[str, ...]) -> None:
    module = importlib.import_module("sagemaker_pytorch_serving_container.default_pytorch_inference_handler")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"Exactly one \.pth or \.pt file is required"):
        module.DefaultPytorchInferenceHandler().default_model_fn(str(tmp_path))


def test_file_that_holds_no_torchscript_is_named(tmp_path: Path) -> None:
    module = importlib.import_module("sagemaker_pytorch_serving_container.default_pytorch_inference_handler")
    importlib.import_module("torch").save({"weight": 1}, tmp_path / "model.pt")
    with pytest.raises(module.ModelLoadError, match=r"Failed to load model\.pt"):
        module.DefaultPytorchInferenceHandler().default_model_fn(str(tmp_path))


def archive(folder: Path, **model: str) -> dict[str, str]:
    """Return the manifest of an unpacked TorchServe archive."""
    named = {"modelName": folder.name, "handler": "service.py", "modelVersion": "1.0", **model}
    manifest = {"createdOn": "01/01/2026", "runtime": "python", "model": named, "archiverVersion": "0.12.0"}
    return {"MAR-INF/MANIFEST.json": json.dumps(manifest)}


TORCHSERVE = """
import json
import torch
from ts.torch_handler.base_handler import BaseHandler

class Service(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor([json.loads(row) for row in rows], dtype=torch.float32)
"""


def test_torchserve_archive_serves_torchscript(tmp_path: Path) -> None:
    save_double(tmp_path / "double.pt")
    handler = load(tmp_path, {"service.py": TORCHSERVE, **archive(tmp_path, serializedFile="double.pt")})
    assert json.loads(ask(handler).body) == [2.0, 4.0]


def test_torchserve_archive_serves_a_state_dict(tmp_path: Path) -> None:
    torch = importlib.import_module("torch")
    network = "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self): super().__init__(2, 1, bias=False)\n"
    torch.save({"weight": torch.tensor([[2.0, 3.0]])}, tmp_path / "net.pt")
    files = {"service.py": TORCHSERVE, "network.py": network}
    handler = load(tmp_path, files | archive(tmp_path, serializedFile="net.pt", modelFile="network.py"))
    assert json.loads(ask(handler).body) == [8.0]


def test_vision_handler_reads_pictures(tmp_path: Path) -> None:
    save_double(tmp_path / "model.pt")
    code = """
import numpy as np
import torch
from ts.torch_handler.vision_handler import VisionHandler

class Service(VisionHandler):
    def image_processing(self, picture):
        return torch.from_numpy(np.asarray(picture, dtype=np.float32).copy()).mean()
    def postprocess(self, data):
        return [{"brightness": value} for value in data.tolist()]
"""
    handler = load(tmp_path, {"service.py": code, **archive(tmp_path, serializedFile="model.pt")})
    image = importlib.import_module("PIL.Image")
    picture = importlib.import_module("sagemaker_huggingface_inference_toolkit.decoder_encoder").encode(
        image.new("L", (2, 2), 10), "image/png"
    )
    assert json.loads(ask(handler, request(picture, "image/png")).body) == {"brightness": 20.0}


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def test_hugging_face_service_takes_inputs_and_parameters(tmp_path: Path) -> None:
    code = """
from sagemaker_huggingface_inference_toolkit.handler_service import HuggingFaceHandlerService

class Service(HuggingFaceHandlerService):
    def load(self, model_dir, context=None):
        return lambda inputs, times=1: [{"label": text * times} for text in inputs]
"""
    handler = load(tmp_path, {"code/inference.py": code})
    body = json.dumps({"inputs": ["a", "b"], "parameters": {"times": 2}}).encode()
    assert ask(handler, request(body)).body == b'[{"label":"aa"},{"label":"bb"}]'
    assert ask(handler, request(b"inputs\nx\n", "text/csv", "text/csv")).body == b"label\r\nx\r\n"
    assert ask(handler, request(b"a,b\n1,2\n", "text/csv")).status == 400
