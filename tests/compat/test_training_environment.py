"""A training script that asks the toolkit where it runs gets what Mooring read."""

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest

from mooring.compat.finder import Room, install
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.sm_variables import sm_variables, training_env
from mooring.runner.platform_files import write_training_inputs


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(Room.TRAINING)
    given = {"epochs": 3, "k": 5, "lr": 0.1, "sagemaker_s3_output": "s3://bucket", "sagemaker_program": "a.py"}
    write_training_inputs(tmp_path, hyperparameters=given, channels={"train": None})
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.delenv("SAGEMAKER_PROGRAM", raising=False)
    return tmp_path


def toolkit(name: str) -> Any:
    return importlib.import_module(f"sagemaker_training.{name}")


def test_environment_is_what_the_launcher_reads(base: Path) -> None:
    environment = toolkit("environment").Environment()
    ours = TrainingEnvironment.load({"SAGEMAKER_BASE_DIR": str(base)})
    assert {**dict(environment), "topology": None} == {**training_env(ours), "topology": None}
    assert environment.hyperparameters == {"epochs": 3, "k": 5, "lr": 0.1}
    assert environment.channel_input_dirs == {"train": str(base / "input/data/train")}
    assert environment["model_dir"] == environment.model_dir == str(base / "model")
    assert (environment.user_entry_point, environment.module_name) == ("a.py", "a")
    assert environment.is_master
    assert environment.sagemaker_s3_output() == "s3://bucket"
    assert environment.to_cmd_args() == ["--epochs", "3", "-k", "5", "--lr", "0.1"]
    assert environment.to_env_vars() == sm_variables(ours)
    assert "hosts" in environment.properties()


def test_environment_says_what_it_has_not(base: Path) -> None:
    environment = toolkit("environment").Environment()
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = environment.no_such
    with pytest.raises(KeyError):
        environment["no_such"]


def test_module_knows_the_folders_and_files(base: Path) -> None:
    module = toolkit("environment")
    assert module.model_dir == str(base / "model")
    assert module.code_dir == str(base / "code")
    assert module.output_data_dir == str(base / "output/data")
    assert module.channel_path("x") == str(base / "input/data/x")
    assert module.read_hyperparameters()["epochs"] == 3
    assert module.read_resource_config()["hosts"]
    assert list(module.read_input_data_config()) == ["train"]
    assert module.num_cpus() >= 1
    with pytest.raises(AttributeError, match="no_such"):
        _ = module.no_such


def test_importing_makes_no_folder(base: Path) -> None:
    before = sorted(base.rglob("*"))
    toolkit("environment")
    assert sorted(base.rglob("*")) == before


@pytest.mark.usefixtures("base")
def test_dictionaries_become_variables_and_arguments() -> None:
    mapping = toolkit("mapping")
    assert mapping.to_env_vars({"a-b": [1, 2], "c": None, "d": "é"}) == {"SM_A-B": "[1,2]", "SM_C": "", "SM_D": "é"}
    assert mapping.to_cmd_args({"opt": {"b": 1, "a": 2}}) == ["--opt", "a=2,b=1"]
    split = mapping.split_by_criteria({"sagemaker_x": 1, "y": 2, "z": 3}, keys=["z"], prefix="sagemaker_")
    assert split == ({"sagemaker_x": 1, "z": 3}, {"y": 2})


@pytest.mark.usefixtures("base")
def test_small_modules_have_what_scripts_import() -> None:
    assert toolkit("params").USER_PROGRAM_ENV == "SAGEMAKER_PROGRAM"
    assert toolkit("logging_config").get_logger() is logging.getLogger("sagemaker-training-toolkit")
    assert str(toolkit("errors").ChannelDoesNotExistError("x")) == "Channel x is not a valid channel"
    failed = toolkit("errors").ExecuteUserScriptError("python a.py", 2, b"boom")
    assert (failed.return_code, isinstance(failed, toolkit("errors").ClientError)) == ("2", True)
    assert 'ErrorMessage "boom"' in str(failed)
