"""examples/byoc without an engine: its code where the image has it, as a job and then as an endpoint."""

import json
import shutil
from pathlib import Path

import httpx
import pytest
from servers import free_port, wait_until

from mooring.contract.paths import ContainerPaths
from mooring.handler.errors import ModelFolderError
from mooring.handler.resolve import choose_handler
from mooring.runner.container_spec import ContainerSpec
from mooring.runner.platform_files import write_training_inputs
from mooring.runner.process_runner import ProcessRunner

EXAMPLE = Path(__file__).parents[2] / "examples/byoc"
NAMED_BY = ("a variable", "a hyperparameter")


def test_image_is_two_lines() -> None:
    lines = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert lines == ["FROM mooring:cpu", f"COPY code {ContainerPaths().code}"]
    shown = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert "".join(f"    {line}\n" for line in lines) in shown


def trained(base: Path, way: str) -> ContainerPaths:
    """Run the job as the image would: the code is there already, and the job says which script runs."""
    given: dict[str, object] = {"ridge": 0.0}
    variables = {"MOORING_START_METHOD": "spawn"}  # nothing here needs torch
    if way == "a hyperparameter":
        given["sagemaker_program"] = "train.py"
    else:
        variables["SAGEMAKER_PROGRAM"] = "train.py"
    paths = write_training_inputs(base, hyperparameters=given, channels={"train": "text/csv"})
    shutil.copytree(EXAMPLE / "code", paths.code, dirs_exist_ok=True)
    shutil.copytree(EXAMPLE / "data", paths.channel("train"), dirs_exist_ok=True)
    lines: list[str] = []
    with ProcessRunner(lines.append).start(ContainerSpec(("train",), base, variables)) as container:
        code = container.wait(100)
    assert code == 0, "".join(lines)
    assert "train:rmse=0.0000;\n" in lines
    return paths


@pytest.mark.parametrize("way", NAMED_BY)
def test_job_leaves_a_model_that_is_served(tmp_path: Path, way: str) -> None:
    trained(tmp_path, way)
    port = free_port()
    with ProcessRunner(print).start(ContainerSpec(("serve",), tmp_path, port=port)) as container:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def is_healthy() -> bool:
                assert container.poll() is None
                try:
                    return client.get("/ping").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(is_healthy, 60)
            assert client.post("/invocations", json=[[3, 70], [1, 30]]).json() == pytest.approx([285.0, 125.0])
            rows = client.post(
                "/invocations", content="3,70\n", headers={"content-type": "text/csv", "accept": "text/csv"}
            )
            assert float(rows.text) == pytest.approx(285.0)
        assert container.stop(30) == 0


def test_program_that_an_image_names_is_taken_for_the_handler_too(tmp_path: Path) -> None:
    """Why the Dockerfile names none."""
    (tmp_path / "code").mkdir()
    shutil.copy(EXAMPLE / "code/inference.py", tmp_path / "code")
    assert choose_handler(tmp_path, {}).files[0].name == "inference.py"
    with pytest.raises(ModelFolderError, match=r"train\.py is named but not there"):
        choose_handler(tmp_path, {"SAGEMAKER_PROGRAM": "train.py"})
    assert choose_handler(tmp_path, {"SAGEMAKER_PROGRAM": "inference.py"}).files[0].name == "inference.py"


def test_data_is_as_the_tests_have_it() -> None:
    for row in (EXAMPLE / "data/prices.csv").read_text(encoding="utf-8").splitlines():
        rooms, area, price = json.loads(f"[{row}]")
        assert price == 20 * rooms + 3 * area + 15
