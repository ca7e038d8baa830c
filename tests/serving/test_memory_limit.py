"""Loading under a hard memory limit: 507, and never the end of the container."""

import warnings
from pathlib import Path

import pytest
import torch
from models import code_model, layered_model, scale_model
from servers import Servers

from benchmarks.memory_limits import can_limit_memory, memory_limit

MIB = 1 << 20
# Leaves 320 MiB for models, after the reserve.
LIMIT = 704 * MIB
# Holds far more than its files are large.
HUNGRY = (
    "kept = []\n"
    "def model_fn(model_dir):\n"
    "    for _ in range({megabytes}): kept.append(bytes(b'x' * (1 << 20)))\n"
    "def transform_fn(model, body, content_type, accept): return body, accept\n"
)

# Room for the zygote with torch, too.
LIMIT_WITH_TORCH = 1200 * MIB
LAYERS = 24  # of 4 MiB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not can_limit_memory(), reason="may not make control groups here"),
]


def test_loading_never_ends_a_container_with_a_hard_limit(start_server: Servers, tmp_path: Path) -> None:
    with memory_limit(LIMIT) as command:
        server = start_server(tmp_path, command=command)
        assert server.load("steady", scale_model(tmp_path / "steady")).status_code == 200
        # Files tell how large these are: refused before anything is loaded.
        statuses = []
        for index in range(6):
            folder = layered_model(tmp_path / f"big{index}", 16, seed=index)
            statuses.append(server.load(f"big{index}", folder).status_code)
        assert statuses[0] == 200
        assert statuses[-1] == 507
        assert set(statuses) == {200, 507}
        for index in range(6):
            server.client.delete(f"/models/big{index}")
        # Nothing tells how large this is: the kernel ends its process, and only that one.
        answer = server.load("hungry", code_model(tmp_path / "hungry", HUNGRY.format(megabytes=4096)))
        assert answer.status_code == 507
        assert "out of memory" in answer.json()["message"].lower()
        assert server.process.poll() is None
        assert server.invoke("steady", [[1, 2, 3]]).json() == [[2, 4, 6]]
        # And one that fits is loaded afterwards.
        assert server.load("modest", code_model(tmp_path / "modest", HUNGRY.format(megabytes=64))).status_code == 200
        assert server.client.get("/models/modest").json()["bytes"] > 64 * MIB
        assert server.stop() == 0


def large_program(folder: Path, seed: int) -> Path:
    """A program of 96 MiB, by turns TorchScript and what torch.export saves."""
    torch.manual_seed(seed)
    folder.mkdir()
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(LAYERS))).eval()
    example = (torch.ones(1, 1024),)
    if seed % 2:
        torch.export.save(torch.export.export(model, example), folder / "model.pt2")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated as a whole
            torch.jit.trace(model, example).save(folder / "model.pt")  # type: ignore[no-untyped-call]
    return folder


def test_large_torch_programs_are_loaded_or_refused_and_none_ends_by_the_limit(
    start_server: Servers, tmp_path: Path
) -> None:
    """A load holds a program's weights in memory of its own until they are mapped: what was promised covers that."""
    with memory_limit(LIMIT_WITH_TORCH) as command:
        variables = {"MOORING_MODEL_CACHE": str(tmp_path / "cache")}
        server = start_server(tmp_path, command=command, variables=variables)
        answers = [server.load(f"p{seed}", large_program(tmp_path / f"p{seed}", seed)) for seed in range(8)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:2] == [200, 200]
        assert set(statuses) == {200, 507}
        # Refused before it was loaded, not because the kernel ended its process.
        refusals = [answer.json()["message"] for answer in answers if answer.status_code == 507]
        assert all(" is free" in refusal for refusal in refusals), refusals
        described = server.client.get("/models/p0").json()
        assert (described["tier"], described["bytes"] < 96 * MIB) == ("mapped", True)
        assert server.invoke("p1", [[1.0] * 1024]).status_code == 200
        assert server.stop() == 0
