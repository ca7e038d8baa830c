"""The GPU image without a GPU: it trains and serves on processors. Tests build it with the CPU build of torch."""

from pathlib import Path

from containers import serving, training
from images import Images
from models import scale_model

from mooring.contract.paths import ContainerPaths
from mooring.runner.platform_files import write_training_inputs

SCRIPT = """
import os, pathlib, onnxruntime, torch, torch.distributed as dist
from mooring.training import process_group
with process_group() as group:
    ones = torch.ones(1, device=group.device)
    dist.all_reduce(ones)
    print("device", group.device, "sum", int(ones), "runtime", onnxruntime.get_available_providers()[-1], flush=True)
pathlib.Path(os.environ["SM_MODEL_DIR"], "left.txt").write_text("by the script")
"""
VARIABLES = ["--env", "SAGEMAKER_PROGRAM=train.py", "--env", "MOORING_PROCESSES_PER_HOST=2"]


def test_gpu_image_trains_on_processors_where_there_is_nothing_else(images: Images, tmp_path: Path) -> None:
    paths = write_training_inputs(tmp_path / "job", hyperparameters={}, channels={}, seen_as=Path("/opt/ml"))
    (paths.code / "train.py").write_text(SCRIPT, encoding="utf-8")
    with training(images.gpu, tmp_path / "job", options=VARIABLES) as container:
        assert container.wait() == 0, container.logs
        assert container.logs.count("device cpu sum 2 runtime CPUExecutionProvider") == 2
    assert (ContainerPaths(tmp_path / "job").model / "left.txt").exists()


def test_gpu_image_serves_on_processors_where_there_is_nothing_else(images: Images, tmp_path: Path) -> None:
    mount = f"{scale_model(tmp_path / 'model')}:/opt/ml/model:ro"
    with serving(images.gpu, "serve", options=["--volume", mount]) as served:
        assert served.ask([[1, 2, 3]]).json() == [[2, 4, 6]]
        assert served.container.stop(30) == 0
