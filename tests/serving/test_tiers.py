"""Large ONNX models in their three forms, in a real server; and past the limit of mappings of a process."""

import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import layered_model, scale_model
from onnx import TensorProto, helper, numpy_helper
from servers import RunningServer, Servers, wait_until

from mooring.artifact.archive import pack
from mooring.handler.defaults.model_cache import Tier
from mooring.handler.defaults.onnx import OnnxHandler
from mooring.handler.defaults.onnx_cache import OnnxCache
from mooring.handler.defaults.onnx_tiers import open_session
from mooring.handler.protocol import InferenceRequest, InferenceResponse
from mooring.handler.terms import LoadTerms
from mooring.serving.memory import private_bytes

WIDTH = 1024


def tier(server: RunningServer, name: str) -> str:
    return str(server.client.get(f"/models/{name}").json().get("tier", ""))


def start(start_server: Servers, root: Path) -> RunningServer:
    return start_server(root, variables={"MOORING_MODEL_CACHE": str(root / ".cache")})


def test_large_model_is_mapped_when_its_form_is_made_and_answers_the_same(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start(start_server, tmp_path)
    server.load("m", layered_model(tmp_path / "m", 5))
    value = np.random.default_rng(1).standard_normal((1, WIDTH)).tolist()
    assert tier(server, "m") == "inline"
    before = server.invoke("m", value).json()
    wait_until(lambda: tier(server, "m") == "mapped", 60)
    assert np.allclose(server.invoke("m", value).json(), before, rtol=1e-4, atol=1e-4)
    held = server.client.get("/models/m").json()["bytes"]
    assert held < 8 << 20
    server.client.delete("/models/m")
    server.load("m", tmp_path / "m")
    assert tier(server, "m") == "mapped"


def test_other_models_are_answered_while_a_large_one_loads_in_their_process(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start(start_server, tmp_path)
    assert server.load("small", scale_model(tmp_path / "small")).status_code == 200
    folder = layered_model(tmp_path / "large", 40)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(server.load, "large", folder)
        wait_until(lambda: server.client.get("/models/large").json().get("status") == "loading")
        answered = 0
        while not loading.done():
            assert server.invoke("small", [[1, 2, 3]]).status_code == 200
            answered += 1
    assert loading.result().status_code == 200
    assert answered > 10  # a load of 160 MB that held up the process would have let through one or two
    assert server.client.get("/models/small").json()["hosts"] == server.client.get("/models/large").json()["hosts"]


def test_model_that_is_asked_often_is_prepacked(start_server: Servers, tmp_path: Path) -> None:
    server = start(start_server, tmp_path)
    server.load("m", layered_model(tmp_path / "m", 5))
    wait_until(lambda: tier(server, "m") == "mapped", 60)
    value = np.ones((1, WIDTH)).tolist()
    first = server.invoke("m", value).json()
    for _ in range(250):
        answer = server.invoke("m", value)
        assert answer.status_code == 200
    wait_until(lambda: tier(server, "m") == "prepacked", 20)
    assert np.allclose(server.invoke("m", value).json(), first, rtol=1e-4, atol=1e-4)


def test_weights_that_models_share_are_on_disk_and_in_memory_once(start_server: Servers, tmp_path: Path) -> None:
    """Four models of 20 MiB, all but a bias alike, cost their host less than one of them."""
    server = start(start_server, tmp_path)
    names = [f"m{index}" for index in range(4)]
    for index, name in enumerate(names):
        server.load(name, layered_model(tmp_path / name, 5, bias=float(index)))
    wait_until(lambda: {tier(server, name) for name in names} == {"mapped"}, 90)
    answers = [np.array(server.invoke(name, [[0.0] * WIDTH]).json())[0, 0] for name in names]
    assert answers == [0.0, 1.0, 2.0, 3.0]
    weights = [file for file in (tmp_path / ".cache").iterdir() if file.suffix == ".weights"]
    assert len(weights) == 5
    (host,) = server.hosts()
    shared = sum(region.rss for region in host.memory_maps(grouped=False) if region.path.endswith(".weights"))
    assert private_bytes(host.pid) < 60 << 20
    assert shared < 4 * 5 * (4 << 20) + (1 << 20)


def test_file_that_changes_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    cache = OnnxCache(tmp_path / "cache")
    file = layered_model(tmp_path / "m", 4) / "model.onnx"
    made = cache.make(file)
    assert made is not None
    assert cache.find(file) == made
    os.utime(file, (1, 1))
    assert cache.find(file) is None


def test_model_unpacked_in_place_of_another_of_its_size_answers_as_itself(tmp_path: Path) -> None:
    variables = {"MOORING_MODEL_CACHE": str(tmp_path / "cache")}
    cache = OnnxCache.open(variables)
    assert cache is not None
    file = tmp_path / "model/model.onnx"
    row = json.dumps(np.ones((1, WIDTH)).tolist()).encode()
    answers, sizes = [], set()
    for seed in (1, 2):
        pack(layered_model(tmp_path / f"{seed}", 4, seed), tmp_path / "model.tar.gz")
        with tarfile.open(tmp_path / "model.tar.gz") as archive:
            archive.extractall(file.parent, filter="data")  # which keeps times, as the platform's does
        sizes.add((file.stat().st_size, file.stat().st_mtime_ns))
        for tier in (Tier.INLINE, Tier.MAPPED):
            handler = OnnxHandler.load(file, LoadTerms(variables=variables))
            assert handler.metadata()["tier"] == tier.value
            (answer,) = handler.respond([InferenceRequest(row, "application/json", "", {})])
            assert isinstance(answer, InferenceResponse)
            answers.append(json.loads(answer.body))
            assert cache.make(file) == cache.find(file)
    assert len(sizes) == 1
    assert np.allclose(answers[0], answers[1], rtol=1e-4, atol=1e-4)
    assert np.allclose(answers[2], answers[3], rtol=1e-4, atol=1e-4)
    assert not np.allclose(answers[0], answers[2], rtol=1e-1, atol=1e-1)


@pytest.mark.parametrize("location", ["weights", "parts/weights"])
def test_weights_that_change_beside_their_model_are_not_taken_for_the_old_ones(tmp_path: Path, location: str) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    cache = OnnxCache(tmp_path / "cache")
    weights = tmp_path / "m" / location
    weights.parent.mkdir(parents=True)
    file = tmp_path / "m/model.onnx"
    onnx.save(turned_model(), file, save_as_external_data=True, location=location)
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    made = cache.make(file)
    assert made is not None
    assert cache.find(file) == made
    weights.write_bytes(weights.read_bytes()[::-1])
    os.utime(weights, ns=times)
    assert cache.find(file) is None


def turned_model() -> onnx.ModelProto:
    """Return a model of a matrix that optimising turns, and so moves into the model's file."""
    weight = numpy_helper.from_array(np.arange(512 * 512, dtype=np.float32).reshape(512, 512), "w")
    nodes = [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 512]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "turned", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_mapped_form_says_of_itself_what_the_file_does(tmp_path: Path) -> None:
    """How pictures come to a model's size, for one."""
    (tmp_path / "cache").mkdir(mode=0o700)
    file = layered_model(tmp_path / "m", 4) / "model.onnx"
    model = onnx.load(file)
    helper.set_model_props(model, {"mooring.picture_fit": "crop"})
    onnx.save(model, file)
    made = OnnxCache(tmp_path / "cache").make(file)
    assert made is not None
    (kept,) = onnx.load(made.path, load_external_data=False).metadata_props
    assert (kept.key, kept.value) == ("mooring.picture_fit", "crop")


def test_cache_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    assert OnnxCache.open({"MOORING_MODEL_CACHE": str(folder)}) is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_models_with_more_mappings_than_a_process_may_have_get_another_host(
    start_server: Servers, tmp_path: Path
) -> None:
    """Each model maps a thousand weights, which are one small file: seventy are too much for one process."""
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    count, models = 1000, min(limit, 65_530) // 1000 + 5
    graph = mapped_thousandfold(count)
    server = start_server(tmp_path)
    for index in range(models):
        folder = tmp_path / f"m{index}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(graph)
        (folder / "block.weights").write_bytes(bytes(4 * BLOCK))
        assert server.load(f"m{index}", folder).status_code == 200, server.log.read_text()[-2000:]
    assert len(server.hosts()) >= 2
    for index in range(0, models, 7):
        assert server.invoke(f"m{index}", [[1.0]]).json() == [[1.0]]


BLOCK = 1024


def mapped_thousandfold(count: int) -> bytes:
    """Return a model that gives its input back, by way of `count` external weights that are all in one file."""
    weights = []
    for index in range(count):
        tensor = onnx.TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[BLOCK])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "block.weights"), ("offset", "0"), ("length", str(4 * BLOCK))):
            tensor.external_data.add(key=key, value=value)
        weights.append(tensor)
    weights.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
    weights.append(numpy_helper.from_array(np.array(0, dtype=np.int64), "first"))
    # What depends on the input cannot be worked out in advance, so that all weights stay.
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Reshape", ["largest", "one"], ["start"]),
        helper.make_node("Concat", ["start", *(f"w{index}" for index in range(count))], ["all"], axis=0),
        helper.make_node("Gather", ["all", "first"], ["again"]),
        helper.make_node("Sub", ["again", "largest"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "many", [x], [y], weights)
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


@pytest.mark.parametrize("form", [Tier.MAPPED, Tier.PREPACKED])
def test_large_model_has_all_its_threads_although_its_weights_lie_beside_its_file(tmp_path: Path, form: Tier) -> None:
    folder = layered_model(tmp_path / "m", 5)
    (tmp_path / "cache").mkdir()
    made = OnnxCache(tmp_path / "cache").make(folder / "model.onnx")
    assert made is not None
    assert made.path.stat().st_size < 1 << 20
    assert open_session(made.path, 2, form).get_session_options().intra_op_num_threads == 2


def test_model_that_computes_much_is_prepacked_however_seldom_it_is_asked(
    start_server: Servers, tmp_path: Path
) -> None:
    server = start(start_server, tmp_path)
    server.load("m", layered_model(tmp_path / "m", 5))
    wait_until(lambda: tier(server, "m") == "mapped", 60)
    rows = np.ones((128, WIDTH)).tolist()
    asked = 0
    while tier(server, "m") == "mapped":
        assert server.invoke("m", rows).status_code == 200
        asked += 1
    assert tier(server, "m") == "prepacked"
    assert asked < 200
