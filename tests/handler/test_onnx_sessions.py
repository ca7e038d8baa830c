import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from models import layered_model, scale_model
from numpy.typing import NDArray
from onnx import TensorProto, helper, save

from mooring.handler.defaults.model_cache import Tier
from mooring.handler.defaults.onnx import OnnxHandler
from mooring.handler.defaults.onnx_cache import OnnxCache
from mooring.handler.defaults.onnx_sessions import Sessions, piece_rows
from mooring.handler.defaults.onnx_tiers import Form
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms

WIDTH = 1024
ROWS = [1, 2, 3, 7, 8, 31, 64, 65]


def session(file: Path, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def picking_model(folder: Path) -> Path:
    """Write a model whose rows are a place in a table of eight: any other place is an error."""
    folder.mkdir()
    table = helper.make_tensor("table", TensorProto.FLOAT, [8, 2], np.arange(16, dtype=np.float32))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]),
    ]
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [table])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", ROWS)
def test_rows_shared_by_threads_are_answered_in_their_order(tmp_path: Path, rows: int, threads: int) -> None:
    file = picking_model(tmp_path / "m")
    sessions = Sessions(session(file, threads), session(file), threads)
    places = np.arange(rows, dtype=np.int64) % 8
    (output,) = sessions.run(["y"], {"x": places}, rows)
    assert output.tolist() == [[2 * place, 2 * place + 1] for place in places.tolist()]


@pytest.mark.parametrize("threads", range(1, 33))
def test_every_row_is_in_a_piece_and_threads_are_busy(threads: int) -> None:
    for rows in range(1, 200):
        size = piece_rows(rows, threads)
        if size:
            waves = -(-rows // size)
            assert rows >= 0.8 * threads * size * -(-waves // threads)


def test_piece_that_fails_fails_the_batch(tmp_path: Path) -> None:
    file = picking_model(tmp_path / "m")
    sessions = Sessions(session(file, 2), session(file), 2)
    with pytest.raises(Exception, match="out of"):
        sessions.run(["y"], {"x": np.array([*range(8), 99, *range(7)])}, 16)
    assert len(sessions.run(["y"], {"x": np.arange(8)}, 8)[0]) == 8


def test_hot_model_answers_batches_as_it_did_and_tells_only_the_one_at_fault(tmp_path: Path) -> None:
    folder = layered_model(tmp_path / "m", 5)
    (tmp_path / "cache").mkdir()
    OnnxCache(tmp_path / "cache").make(folder / "model.onnx")
    terms = LoadTerms(2, None, {"MOORING_MODEL_CACHE": str(tmp_path / "cache")})
    cold = OnnxHandler.load(folder / "model.onnx", terms)
    hot = OnnxHandler.load(folder / "model.onnx", terms)
    hot.change_tier("prepacked")
    generator = np.random.default_rng(0)
    bodies = [generator.normal(size=(1 + index % 3, WIDTH)) for index in range(16)]
    expected, answers = (numbers(handler, bodies) for handler in (cold, hot))
    assert all(np.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in zip(expected, answers, strict=True))
    bad = InferenceRequest(b"[[1]]", "application/json", "", {})
    good = InferenceRequest(str(bodies[0].tolist()).encode(), "application/json", "", {})
    responses = hot.respond([good, bad, good, good, good])
    assert [isinstance(one, InferenceResponse) for one in responses] == [True, False, True, True, True]


def test_only_hot_models_with_independent_rows_have_a_session_for_them(tmp_path: Path) -> None:
    folder = layered_model(tmp_path / "m", 5)
    (tmp_path / "cache").mkdir()
    cached = OnnxCache(tmp_path / "cache").make(folder / "model.onnx")
    for tier, threads, by_rows, expected in (
        (Tier.PREPACKED, 2, True, True),
        (Tier.PREPACKED, 2, False, False),
        (Tier.PREPACKED, 1, True, False),
        (Tier.MAPPED, 2, True, False),
    ):
        terms = LoadTerms(threads, None, {})
        sessions = Form(folder / "model.onnx", terms, tier, cached).open(by_rows=by_rows)
        assert sessions.shares_rows is expected


def numbers(handler: OnnxHandler, bodies: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    requests = [InferenceRequest(str(body.tolist()).encode(), "application/json", "", {}) for body in bodies]
    answers = []
    for response in handler.respond(requests):
        assert isinstance(response, InferenceResponse)
        answers.append(np.array(json.loads(response.body)))
    return answers


@pytest.mark.parametrize(
    ("width", "threads", "expected"), [(3, 2, 64), (150_528, 2, 8), (150_528, 16, 64), (300_000, 1, 4)]
)
def test_large_rows_run_in_smaller_batches(tmp_path: Path, width: int, threads: int, expected: int) -> None:
    folder = scale_model(tmp_path / "m", width=width)
    assert OnnxHandler.load(folder / "model.onnx", LoadTerms(threads)).max_batch_rows == expected
