"""The launch plan: who runs, how many, with which arguments and variables. Nothing is started here."""

from pathlib import Path
from typing import Any

import pytest
from jobs import HOMOGENEOUS, ONE_HOST, write_config

from mooring.artifact.archive import pack
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import SettingError
from mooring.training.entry_point import Command, EntryPoint, EntryPointError, Module, Script, find_entry_point
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
    assert (made.world_size, len(made.ranks)) == (1, 1)


def test_second_host_has_the_later_ranks_and_does_not_hold_the_store(tmp_path: Path) -> None:
    made = plan(tmp_path, resources=HOMOGENEOUS | {"current_host": "algo-2"}, MOORING_PROCESSES_PER_HOST="3")
    assert [rank.rank for rank in made.ranks] == [3, 4, 5]
    assert made.ranks[1].variables["RANK"] == "4"
    assert made.ranks[1].variables["LOCAL_RANK"] == "1"
    assert made.ranks[1].variables["WORLD_SIZE"] == "6"
    assert made.ranks[1].variables["MASTER_ADDR"] == "algo-1"
    assert (made.meeting_port, made.is_meeting_host) == (7777, False)


def test_sdk_switch_makes_a_script_distributed_over_hosts(tmp_path: Path) -> None:
    made = plan(tmp_path, resources=HOMOGENEOUS, hps={"sagemaker_torch_distributed_enabled": "true"})
    assert (made.world_size, made.is_meeting_host) == (2, True)


def test_one_hosts_ranks_meet_on_the_loopback_at_any_port(tmp_path: Path) -> None:
    made = plan(tmp_path, MOORING_PROCESSES_PER_HOST="2")
    assert made.ranks[0].variables["MASTER_ADDR"] == "127.0.0.1"
    assert made.variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert made.meeting_port == 0


def test_ready_made_program_reads_its_hyperparameters_itself(tmp_path: Path) -> None:
    assert plan(tmp_path, Module("a.b"), hps={"epochs": "3"}).arguments == ()


def test_users_variables_stand_where_the_plan_has_only_a_default(tmp_path: Path) -> None:
    made = plan(tmp_path, OMP_NUM_THREADS="7", GLOO_SOCKET_IFNAME="eth9", SM_HOSTS="stale")
    assert (made.variables["OMP_NUM_THREADS"], made.variables["GLOO_SOCKET_IFNAME"]) == ("7", "eth9")
    assert made.variables["SM_HOSTS"] == '["algo-1"]'


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


def test_submit_directory_is_copied_to_where_code_is_expected(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text("print()", encoding="utf-8")
    made = found(tmp_path, SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY=str(source))
    assert made == Script(tmp_path / "code/train.py")
    assert (tmp_path / "code/train.py").read_text(encoding="utf-8") == "print()"


def test_submit_archive_is_unpacked_to_where_code_is_expected(tmp_path: Path) -> None:
    (tmp_path / "source/lib").mkdir(parents=True)
    (tmp_path / "source/train.py").touch()
    (tmp_path / "source/lib/part.py").touch()
    pack(tmp_path / "source", tmp_path / "source.tar.gz")
    made = found(tmp_path, SAGEMAKER_PROGRAM="train.py", SAGEMAKER_SUBMIT_DIRECTORY=str(tmp_path / "source.tar.gz"))
    assert made == Script(tmp_path / "code/train.py")
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == ["lib", "train.py"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "nothing to run.*image-classification"),
        ({"MOORING_PROGRAM": "nonsense"}, 'MOORING_PROGRAM is "nonsense".*image-classification'),
        ({"MOORING_PROGRAM": "image-classification", "SAGEMAKER_PROGRAM": "train.py"}, "unset the one"),
        ({"SAGEMAKER_PROGRAM": "train.py"}, "no train.py in .*code; it holds: nothing"),
        ({"SAGEMAKER_PROGRAM": "train.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/nowhere"}, "/nowhere does not exist"),
    ],
)
def test_what_cannot_run_is_explained(tmp_path: Path, variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(EntryPointError, match=sentence):
        found(tmp_path, **variables)
