"""The launch plan: who runs, how many, with which arguments and variables. Nothing is started here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import HOMOGENEOUS, ONE_HOST, write_config

from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import SettingError
from mooring.training.entry_point import (
    Command,
    EntryPoint,
    EntryPointError,
    Function,
    Module,
    Script,
    find_entry_point,
)
from mooring.training.plan import LaunchPlan, make_plan


def environment(base: Path, resources: Any = ONE_HOST, hps: Any = None, **variables: str) -> TrainingEnvironment:
    write_config(base, "resourceconfig.json", resources)
    write_config(base, "hyperparameters.json", hps or {})
    return TrainingEnvironment.load({"SAGEMAKER_BASE_DIR": str(base), **variables})


def plan(base: Path, entry_point: EntryPoint | None = None, /, **given: Any) -> LaunchPlan:
    return make_plan(environment(base, **given), entry_point or Script(base / "code/train.py"))


def test_script_runs_once_without_torchs_variables(tmp_path: Path) -> None:
    made = plan(tmp_path, hps={"epochs": "3", "lr": "0.1"})
    assert made.arguments == ("--epochs", "3", "--lr", "0.1")
    assert [dict(rank.variables) for rank in made.ranks] == [{}]
    assert made.meeting_port is None
    assert made.variables["SM_HP_EPOCHS"] == "3"


def test_each_host_runs_an_undistributed_script_by_itself(tmp_path: Path) -> None:
    made = plan(tmp_path, resources=HOMOGENEOUS | {"current_host": "algo-2"})
    assert (made.world_size, [dict(rank.variables) for rank in made.ranks]) == (1, [{}])
    assert made.meeting_port is None


@pytest.mark.parametrize(
    ("resources", "address"), [(HOMOGENEOUS | {"current_host": "algo-2"}, "algo-1"), (ONE_HOST, "127.0.0.1")]
)
def test_undistributed_script_is_told_where_it_may_meet_those_of_other_hosts(
    tmp_path: Path, resources: Any, address: str
) -> None:
    """As the earlier PyTorch image told it, whose scripts take their rank from SM_HOSTS."""
    variables = plan(tmp_path, resources=resources).variables
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == (address, "7777")
    assert (variables["SM_MASTER_ADDR"], variables["SM_MASTER_PORT"]) == ("algo-1", "7777")


def test_undistributed_script_is_kept_to_the_loopback_only_where_there_is_one_host(tmp_path: Path) -> None:
    several = environment(tmp_path / "several", resources=HOMOGENEOUS)
    interface = several.cluster.usable_interface()
    assert make_plan(several, Module("a")).variables.get("GLOO_SOCKET_IFNAME") == interface != "lo"
    assert plan(tmp_path / "one").variables["GLOO_SOCKET_IFNAME"] == "lo"


def test_second_host_has_the_later_ranks_and_does_not_hold_the_store(tmp_path: Path) -> None:
    made = plan(tmp_path, resources=HOMOGENEOUS | {"current_host": "algo-2"}, MOORING_PROCESSES_PER_HOST="3")
    assert [rank.rank for rank in made.ranks] == [3, 4, 5]
    assert made.ranks[1].variables["RANK"] == "4"
    assert made.ranks[1].variables["LOCAL_RANK"] == "1"
    assert made.ranks[1].variables["WORLD_SIZE"] == "6"
    assert made.ranks[1].variables["MASTER_ADDR"] == "algo-1"
    assert (made.meeting_port, made.hosts, made.host) == (7777, ("algo-1", "algo-2"), "algo-2")


def test_sdk_switch_makes_a_script_distributed_over_hosts(tmp_path: Path) -> None:
    made = plan(tmp_path, resources=HOMOGENEOUS, hps={"sagemaker_torch_distributed_enabled": "true"})
    assert (made.world_size, made.hosts) == (2, ("algo-1", "algo-2"))


def test_one_hosts_ranks_meet_on_the_loopback_at_any_port(tmp_path: Path) -> None:
    made = plan(tmp_path, MOORING_PROCESSES_PER_HOST="2")
    assert made.ranks[0].variables["MASTER_ADDR"] == "127.0.0.1"
    assert made.variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert made.meeting_port == 0


def test_ready_made_program_reads_its_hyperparameters_itself(tmp_path: Path) -> None:
    assert plan(tmp_path, Module("mooring.training.programs.image_classification"), hps={"epochs": "3"}).arguments == ()


def test_output_is_not_kept_back_in_the_ranks(tmp_path: Path) -> None:
    """Through a pipe, Python would wait for 8 KiB of lines."""
    assert plan(tmp_path).variables["PYTHONUNBUFFERED"] == "1"


def test_users_variables_stand_where_the_plan_has_only_a_default(tmp_path: Path) -> None:
    chosen = {"OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "eth9", "MASTER_ADDR": "elsewhere", "MASTER_PORT": "29500"}
    made = plan(tmp_path, **chosen, SM_HOSTS="stale")
    assert {name: made.variables[name] for name in chosen} == chosen
    assert made.variables["SM_HOSTS"] == '["algo-1"]'


def test_fabric_adapter_is_used_where_there_is_one(tmp_path: Path) -> None:
    without = environment(tmp_path)
    assert "FI_PROVIDER" not in make_plan(without, Module("a")).variables
    assert make_plan(replace(without, has_efa=True), Module("a")).variables["FI_PROVIDER"] == "efa"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOORING_PROCESSES_PER_HOST", "0"),
        ("MOORING_PROCESSES_PER_HOST", "two"),
        ("MOORING_GRACE_SECONDS", "-1"),
        ("MOORING_GRACE_SECONDS", "soon"),
        ("MOORING_GRACE_SECONDS", "nan"),
    ],
)
def test_unusable_setting_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f'{name} is "{value}"'):
        plan(tmp_path, **{name: value})


# --- entry points -----------------------------------------------------------------------------------------------------


def found(base: Path, **variables: str) -> EntryPoint:
    return find_entry_point(environment(base, **variables))


def test_file_type_decides_how_an_entry_point_runs(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    for name in ("train.py", "train.sh", "train"):
        (code / name).touch()
    assert found(tmp_path, SAGEMAKER_PROGRAM="train.py") == Script(code / "train.py")
    assert found(tmp_path, SAGEMAKER_PROGRAM="train.sh") == Command(("/bin/bash", str(code / "train.sh")))
    assert found(tmp_path, SAGEMAKER_PROGRAM="train") == Command((str(code / "train"),))


def test_module_flag_and_a_command_line_are_entry_points(tmp_path: Path) -> None:
    assert found(tmp_path, SAGEMAKER_PROGRAM="-m package.train") == Module("package.train")
    command = found(tmp_path, SAGEMAKER_PROGRAM="sh -c 'echo \"two words\"'")
    assert isinstance(command, Command)
    assert command.argv[1:] == ("-c", 'echo "two words"')


def test_framework_module_is_an_entry_point(tmp_path: Path) -> None:
    assert found(tmp_path, SAGEMAKER_TRAINING_MODULE="a.b:main") == Function("a.b", "main")


@pytest.mark.parametrize(
    ("files", "program", "is_module"),
    [
        ({"setup.py": "", "train.py": ""}, "train.py", True),  # as the earlier toolkit decides
        ({"pyproject.toml": "[project]"}, "package/train.py", True),
        ({"pyproject.toml": "[tool.ruff]", "train.py": ""}, "train.py", False),
        ({"pyproject.toml": "[project]", "train.py": ""}, "train.py", False),
    ],
)
def test_code_that_is_a_package_runs_as_a_module(
    tmp_path: Path, files: dict[str, str], program: str, is_module: bool
) -> None:
    (tmp_path / "code").mkdir()
    for name, content in files.items():
        (tmp_path / "code" / name).write_text(content, encoding="utf-8")
    assert isinstance(found(tmp_path, SAGEMAKER_PROGRAM=program), Module) == is_module


@pytest.mark.parametrize(
    "key", ["sagemaker_distributed_dataparallel_enabled", "sagemaker_mpi_enabled", "mp_parameters"]
)
def test_launcher_that_is_not_here_is_named_with_what_to_use(tmp_path: Path, key: str) -> None:
    with pytest.raises(EntryPointError, match=f"{key}.*torch_distributed"):
        plan(tmp_path, hps={key: '{"enabled": true}'})


def test_dialect_is_chosen_by_a_variable(tmp_path: Path) -> None:
    assert plan(tmp_path, hps={"amp": "true"}, MOORING_ARGUMENTS="store-true").arguments == ("--amp",)
    with pytest.raises(SettingError, match="sdk-v2, sdk-v3, store-true, nargs, hydra"):
        plan(tmp_path, MOORING_ARGUMENTS="lisp")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SAGEMAKER_PROGRAM": "train.py"}, "no train.py in .*code; it holds: nothing"),
        ({"SAGEMAKER_TRAINING_MODULE": "a.b"}, "expected package.module:function"),
    ],
)
def test_what_cannot_run_is_explained(tmp_path: Path, variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(EntryPointError, match=sentence):
        found(tmp_path, **variables)
