"""Functions that are asynchronous, that stream, or that take several inputs."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mooring.handler.errors import HandlerError
from mooring.handler.protocol import Handler, InferenceRequest, InferenceResponse
from mooring.handler.service import load_user_code
from mooring.handler.terms import LoadTerms

MODEL = "def model_fn(model_dir): return 10\n"
GATHER = """
import asyncio
waiting = 0
everyone = asyncio.Event()
async def model_fn(model_dir): return 3
async def predict_fn(data, model):
    global waiting
    waiting += 1
    if waiting == model: everyone.set()
    await asyncio.wait_for(everyone.wait(), 10)
    return data
"""


@pytest.fixture
def opened() -> Iterator[list[Handler]]:
    """Handlers to close; what their code did to imports is undone."""
    path = list(sys.path)
    handlers: list[Handler] = []
    yield handlers
    for handler in handlers:
        handler.close()
    sys.path[:] = path
    sys.modules.pop("inference", None)


@pytest.fixture
def load(tmp_path: Path, opened: list[Handler]) -> "Load":
    return Load(tmp_path, opened)


class Load:
    def __init__(self, base: Path, opened: list[Handler]) -> None:
        self.base = base
        self.opened = opened

    def __call__(self, code: str) -> Handler:
        script = self.base / "inference.py"
        script.write_text(code, encoding="utf-8")
        self.opened.append(load_user_code(script, self.base, LoadTerms()))
        return self.opened[-1]


def requests(*bodies: bytes) -> list[InferenceRequest]:
    return [InferenceRequest(body, "application/json", "", {"x-own": body.decode()}) for body in bodies]


def told(answers: Sequence[InferenceResponse | Exception]) -> list[object]:
    return [answer.body if isinstance(answer, InferenceResponse) else type(answer) for answer in answers]


def test_asynchronous_functions_answer_requests_at_the_same_time(load: Load) -> None:
    handler = load(GATHER)
    assert handler.max_batch_rows == 64
    assert told(handler.respond(requests(b"1", b"2", b"3"))) == [b"1", b"2", b"3"]


def test_error_of_one_asynchronous_request_spoils_no_other(load: Load) -> None:
    code = MODEL + "async def predict_fn(data, model): return object() if data == 0 else model // (data - 1)\n"
    assert told(load(code).respond(requests(b"0", b"1", b"2"))) == [HandlerError, HandlerError, b"10"]


def test_function_that_hides_that_it_is_asynchronous_is_awaited(load: Load) -> None:
    code = MODEL + "async def later(data): return data\ndef predict_fn(data, model): return later(data)\n"
    handler = load(code)
    for _ in range(2):  # the second time there is a loop
        assert told(handler.respond(requests(b"1", b"2"))) == [b"1", b"2"]


def test_asynchronous_function_gets_a_context_of_its_own(load: Load) -> None:
    code = (
        "async def model_fn(d): return 1\nasync def predict_fn(data, model, *, context): "
        "return context.get_request_header(0, 'x-own')\n"
    )
    assert told(load(code).respond(requests(b"1", b"2"))) == [b'"1"', b'"2"']


@pytest.mark.parametrize("error", ["asyncio.CancelledError", "SystemExit(3)", "KeyError('x')"])
def test_nothing_that_code_raises_ends_the_host(load: Load, error: str) -> None:
    code = f"import asyncio\n{MODEL}async def predict_fn(data, model): raise {error}\n"
    assert told(load(code).respond(requests(b"1"))) == [HandlerError]


@pytest.mark.parametrize(
    "functions",
    [
        "def output_fn(prediction, accept, context):\n    {set}\n    yield 'a'\n    yield 'b'\n",
        "async def output_fn(prediction, accept, context):\n    {set}\n    yield 'a'\n    yield 'b'\n",
        "def output_fn(prediction, accept, context):\n    {set}\n    return iter('ab'), 'x/overruled'\n",
    ],
)
def test_stream_has_the_status_and_headers_set_before_its_first_piece(load: Load, functions: str) -> None:
    setting = "context.set_response_status(201); context.set_response_content_type(0, 'text/event-stream')"
    code = MODEL + "def predict_fn(data, model): return data\n" + functions.format(set=setting)
    (answer,) = load(code).respond(requests(b"1"))
    assert isinstance(answer, InferenceResponse)
    assert answer.chunks is not None
    assert (answer.status, answer.content_type, list(answer.chunks)) == (201, "text/event-stream", [b"a", b"b"])


def test_predictions_that_come_one_by_one_are_sent_so(load: Load) -> None:
    code = MODEL + "def predict_fn(data, model):\n    yield 'token'\n    yield {'a': data}\n"
    (answer,) = load(code).respond(requests(b"1"))
    assert isinstance(answer, InferenceResponse)
    assert answer.chunks is not None
    assert list(answer.chunks) == [b"token", b'{"a":1}\n']


def test_stream_that_fails_at_once_is_an_error(load: Load) -> None:
    code = MODEL + "def transform_fn(m, b, c, a):\n    raise ValueError('x')\n    yield\n"
    assert told(load(code).respond(requests(b"1"))) == [HandlerError]


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "rows"), [("MAX_BATCH_ROWS = 4", 4), ("MAX_BATCH_ROWS = 1", 1), ("predict_fn.batch = True", 32)]
)
def test_module_says_that_predict_fn_takes_a_list(load: Load, mark: str, rows: int) -> None:
    handler = load(f"{MODEL}def predict_fn(inputs, model): return [type(inputs).__name__] * len(inputs)\n{mark}\n")
    assert handler.max_batch_rows == rows
    assert told(handler.respond(requests(b"1")[:rows])) == [b'"list"']


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_each_request_of_a_batch_has_its_own_headers_and_error(load: Load, kind: str) -> None:
    code = f"""
MAX_BATCH_ROWS = 8
calls = []
{MODEL}
{kind} input_fn(body, content_type): return int(body)
{kind} predict_fn(inputs, model, contexts):
    calls.append(len(inputs))
    return [[model // value, context.get_request_header(0, "x-own")] for value, context in zip(inputs, contexts)]
{kind} output_fn(prediction, accept, context):
    if prediction[0] == 2: raise ValueError
    return [*prediction, context.get_request_header(0, "x-own"), calls]
"""
    answers = load(code).respond(requests(b"1", b"x", b"0", b"5", b"2"))
    one = b'[10,"1","1",[4,1,1,1,1]]'
    assert told(answers) == [one, HandlerError, HandlerError, HandlerError, b'[5,"2","2",[4,1,1,1,1]]']


def test_text_that_is_no_unicode_costs_its_own_request_alone(load: Load) -> None:
    code = "MAX_BATCH_ROWS = 4\ndef predict_fn(data, model): return [chr(int(one)) for one in data]\n"
    output = "def input_fn(body, content_type): return body\ndef output_fn(prediction, accept): return prediction\n"
    handler = load(MODEL + code + output)
    assert told(handler.respond(requests(b"97", b"55296", b"98"))) == [b"a", HandlerError, b"b"]


def test_batch_of_which_nothing_can_be_read_is_not_predicted(load: Load) -> None:
    code = f"MAX_BATCH_ROWS = 8\n{MODEL}def predict_fn(inputs, model): raise SystemExit\n"
    kinds = [type(answer).__name__ for answer in load(code).respond(requests(b"[", b"{"))]
    assert kinds == ["BodyDecodeError", "BodyDecodeError"]


@pytest.mark.parametrize("made", ["[1]", "5", "'ab'", "None", "{1: 2, 3: 4}"])
def test_predictions_have_to_be_as_many_as_inputs(load: Load, made: str) -> None:
    code = f"MAX_BATCH_ROWS = 8\n{MODEL}def predict_fn(inputs, model): return {made} if len(inputs) > 1 else []\n"
    (first, _) = load(code).respond(requests(b"1", b"2"))
    assert "it has to return a list with a prediction for each" in str(first)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("MAX_BATCH_ROWS = 0\ndef predict_fn(i, m): pass\n", "MAX_BATCH_ROWS is 0; expected a whole number"),
        ("MAX_BATCH_ROWS = True\ndef predict_fn(i, m): pass\n", "MAX_BATCH_ROWS is True; expected"),
        ("MAX_BATCH_ROWS = 4\n", "is for predict_fn, which the model's code does not define"),
    ],
)
def test_batches_that_cannot_be_are_explained(load: Load, code: str, problem: str) -> None:
    with pytest.raises(HandlerError, match=problem):
        load(MODEL + code)
