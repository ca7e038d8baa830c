"""Services as multi-model-server and TorchServe have them, and which of them, or functions, a script is."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.handler.errors import HandlerError
from mooring.handler.functions import FunctionHandler
from mooring.handler.load import load_handler
from mooring.handler.protocol import Handler, InferenceRequest, InferenceResponse
from mooring.handler.resolve import choose_handler
from mooring.handler.service import ServiceHandler
from mooring.handler.terms import LoadTerms


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """A handler's code lives in a process of its own; here it has to leave this one as it was."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in ("inference", "service", "pkg", "pkg.mod", "helper"):
        if name not in modules:
            sys.modules.pop(name, None)


def load(folder: Path, files: dict[str, str], variables: dict[str, str] | None = None) -> Handler:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    choice = choose_handler(folder, variables or {})
    return load_handler(choice, LoadTerms(variables=variables or {}, config=choice.config))


def request(body: bytes = b"x", content_type: str = "", accept: str = "", **headers: str) -> InferenceRequest:
    return InferenceRequest(body, content_type, accept, headers)


def ask(handler: Handler, asked: InferenceRequest | None = None) -> InferenceResponse:
    (answer,) = handler.respond([asked or request()])
    if isinstance(answer, Exception):
        raise answer
    return answer


ECHO = "def handle(data, context): return None if data is None else [row['body'] for row in data]\n"
CLASS = """
class Service:
    def initialize(self, context): self.folder = context.system_properties["model_dir"]
    def handle(self, data, context): return [self.folder] * len(data)
"""


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("code/service.py", "service:handle"),
        ("service.py", "service:handle"),
        ("code/service.py", "service.py:handle"),
        ("code/pkg/mod.py", "pkg.mod:handle"),
        ("code/pkg/mod.py", "pkg.mod"),
        ("elsewhere/service.py", "{root}/elsewhere/service.py:handle"),
    ],
)
def test_entry_point_is_found_however_it_is_spelled(tmp_path: Path, file: str, entry: str) -> None:
    variables = {"SAGEMAKER_HANDLER": entry.format(root=tmp_path)}
    assert ask(load(tmp_path, {file: ECHO}, variables)).body == b"x"


@pytest.mark.parametrize("entry", ["service:Service", "service:handle", "service.py:handle"])
def test_class_is_made_and_initialized_once(tmp_path: Path, entry: str) -> None:
    handler = load(tmp_path, {"code/service.py": CLASS}, {"SAGEMAKER_HANDLER": entry})
    assert ask(handler).body == str(tmp_path).encode()


def test_class_that_another_is_derived_from_is_not_meant(tmp_path: Path) -> None:
    code = CLASS + "class Mine(Service):\n    def handle(self, data, context): return ['mine'] * len(data)\n"
    assert ask(load(tmp_path, {"code/inference.py": code})).body == b"mine"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ECHO, ServiceHandler), (CLASS, ServiceHandler), (ECHO + "def model_fn(d): return len\n", FunctionHandler)],
)
def test_script_tells_by_what_it_defines(tmp_path: Path, code: str, kind: type) -> None:
    assert isinstance(load(tmp_path, {"code/inference.py": code}), kind)


@pytest.mark.parametrize(
    ("code", "entry", "problem"),
    [
        ("x = 1\n", "", "defines neither functions"),
        ("def helper(): pass\n", "service:serve", "service has no serve"),
        ("x = 1\n", "service:x", "defines neither functions"),
        (CLASS + CLASS.replace("Service", "Other"), "", r"Several classes could handle requests \(Other, Service\)"),
        ("class S:\n    def initialize(self, c): 1/0\n    def handle(self, d, c): pass\n", "", "raised ZeroDivision"),
        ("class S:\n    def __init__(self): 1/0\n    def handle(self, d, c): pass\n", "", "raised ZeroDivision"),
        ("def handle(data, context): 1/0\n", "", "raised ZeroDivisionError"),
        ("import sys\nsys.exit(1)\n", "", "raised SystemExit"),
    ],
)
def test_service_that_cannot_serve_fails_its_load(tmp_path: Path, code: str, entry: str, problem: str) -> None:
    name = "service" if entry else "inference"
    with pytest.raises(HandlerError, match=problem):
        load(tmp_path, {f"code/{name}.py": code}, {"SAGEMAKER_HANDLER": entry} if entry else {})


def test_archives_manifest_names_the_handler_and_is_given_to_it(tmp_path: Path) -> None:
    manifest = {"specificationVersion": "1.0", "model": {"modelName": "archived", "handler": "service:handle"}}
    code = "def handle(data, context): return data and [context.manifest['model']['modelName']] * len(data)\n"
    assert ask(load(tmp_path, {"service.py": code, "MAR-INF/MANIFEST.json": json.dumps(manifest)})).body == b"archived"


def serve(folder: Path, expression: str, imports: str = "") -> Handler:
    code = f"{imports}\ndef handle(data, context): return None if data is None else {expression}\n"
    return load(folder, {"code/inference.py": code, "mooring.toml": "[batching]\nmax_rows = 8\n"})


@pytest.mark.parametrize(
    ("element", "accept", "body", "content_type"),
    [
        ("'é'", "", "é".encode(), "text/plain"),
        ("b'x'", "", b"x", "application/octet-stream"),
        ("bytearray(b'x')", "image/png", b"x", "image/png"),
        ("{'a': [1, None]}", "text/csv", b'{"a":[1,null]}', "application/json"),
        ("[1.5]", "", b"[1.5]", "application/json"),
        ("{'a': np.float32(0.5), 'b': np.arange(2)}", "", b'{"a":0.5,"b":[0,1]}', "application/json"),
        ("{'a': float('nan')}", "", b'{"a":null}', "application/json"),
    ],
)
def test_elements_become_answers(tmp_path: Path, element: str, accept: str, body: bytes, content_type: str) -> None:
    answer = ask(serve(tmp_path, f"[{element}]", "import numpy as np"), request(accept=accept))
    assert (answer.body, answer.content_type) == (body, content_type)


def test_each_request_of_a_batch_has_its_own_headers_and_status(tmp_path: Path) -> None:
    code = """
def handle(data, context):
    if data is None: return
    for index in range(len(data)):
        context.set_response_status(int(context.get_request_header(index, "Wanted")), idx=index)
    return [len(data)] * len(data)
"""
    handler = load(tmp_path, {"code/inference.py": code, "mooring.toml": "[batching]\nmax_rows = 8\n"})
    answers = handler.respond([request(wanted=str(status)) for status in (200, 404, 503)])
    assert [answer.status for answer in answers if isinstance(answer, InferenceResponse)] == [200, 404, 503]
    assert handler.max_batch_rows == 8


def test_requests_that_fail_together_are_tried_alone(tmp_path: Path) -> None:
    handler = serve(tmp_path, "[10 // int(row['body']) for row in data]")
    good, bad, worse = handler.respond([request(b"5"), request(b"0"), request(b"x")])
    assert isinstance(good, InferenceResponse)
    assert good.body == b"2"
    assert [type(answer) for answer in (bad, worse)] == [HandlerError, HandlerError]


def test_text_that_is_no_unicode_costs_its_own_request_alone(tmp_path: Path) -> None:
    handler = serve(tmp_path, "[chr(int(row['body'])) for row in data]")
    good, bad, also_good = handler.respond([request(b"97"), request(b"55296"), request(b"98")])
    assert [answer.body for answer in (good, also_good) if isinstance(answer, InferenceResponse)] == [b"a", b"b"]
    assert isinstance(bad, HandlerError)


@pytest.mark.parametrize("expression", ["[]", "'text'", "None", "{'a': 1}", "['x', 'y']"])
def test_answers_have_to_be_as_many_as_requests(tmp_path: Path, expression: str) -> None:
    with pytest.raises(HandlerError, match="was given 1 requests and returned"):
        ask(serve(tmp_path, expression))


def test_form_is_given_by_its_fields(tmp_path: Path) -> None:
    handler = serve(tmp_path, "[repr(sorted(row.items())) for row in data]")
    body = (
        b'--B\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        b"\x89PNG\r\n\x00\r\n--B--\r\n"
    )
    answer = ask(handler, request(body, "multipart/form-data; boundary=B"))
    assert answer.body == repr([("data", b"\x89PNG\r\n\x00")]).encode()
    good, bad = handler.respond([request(), request(b"nonsense", "multipart/form-data")])
    assert isinstance(good, InferenceResponse)
    assert isinstance(bad, Exception)


def test_handle_may_be_asynchronous_and_stream(tmp_path: Path) -> None:
    code = """
import asyncio
class Service:
    async def initialize(self, context):
        await asyncio.sleep(0)
        self.ready = True
    async def handle(self, data, context):
        await asyncio.sleep(0)
        return [self.pieces() for _ in data]
    async def pieces(self):
        yield "a"
        yield self.ready
"""
    handler = load(tmp_path, {"code/inference.py": code})
    chunks = ask(handler).chunks
    assert chunks is not None
    assert list(chunks) == [b"a", b"true\n"]
    handler.close()


@pytest.mark.parametrize(
    ("name", "facts", "status", "text"),
    [
        ("PredictionException", "message='no', error_code=422", 422, "no"),
        ("BaseInferenceToolkitError", "status_code=404, message='gone', phrase='p'", 404, "gone"),
        ("PredictionException", "message='no', error_code=200", None, "raised PredictionException"),
        ("APIStatusError", "message='key 123 is wrong', status_code=401", None, "raised APIStatusError"),
    ],
)
def test_errors_meant_for_the_client_keep_status_and_message(
    tmp_path: Path, name: str, facts: str, status: int | None, text: str
) -> None:
    imports = f"class {name}(Exception):\n    def __init__(self, **facts): vars(self).update(facts)\n"
    code = f"{imports}\ndef fail(): raise {name}({facts})\ndef handle(data, context): return data and fail()\n"
    (error,) = load(tmp_path, {"code/inference.py": code}).respond([request()])
    assert isinstance(error, HandlerError if status is None else Exception)
    assert getattr(error, "status", None) == status
    assert text in str(error)
    assert "123" not in str(error)


def test_script_named_as_a_library_hides_nothing(tmp_path: Path) -> None:
    before = sys.modules["json"]
    code = "def model_fn(d):\n    import json\n    return json.dumps\n"
    handler = load(tmp_path, {"code/json.py": code}, {"SAGEMAKER_PROGRAM": "json.py"})
    assert ask(handler, request(b"{}", "application/json")).body == b'"{}"'
    assert sys.modules["json"] is before


def test_script_imports_what_lies_beside_it(tmp_path: Path) -> None:
    files = {"code/inference.py": "import helper\nhandle = helper.handle\n", "code/helper.py": ECHO}
    assert ask(load(tmp_path, files)).body == b"x"
