import json
from pathlib import Path
from typing import Any

import pytest
from jobs import HOMOGENEOUS, ONE_HOST, write_config

from mooring.contract.channels import Distribution, InputMode, RecordWrapper, require_channel
from mooring.contract.cluster import read_cluster
from mooring.contract.environment import TrainingEnvironment
from mooring.contract.errors import ConfigurationFileError, MissingChannelError, SettingError
from mooring.contract.paths import ContainerPaths
from mooring.contract.sm_variables import sm_variables

HETEROGENEOUS = {
    "current_host": "algo-3",
    "current_group_name": "gpus",
    "current_instance_type": "ml.p4d.24xlarge",
    "hosts": ["algo-1", "algo-2", "algo-3"],
    "instance_groups": [
        {"instance_group_name": "cpus", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]},
        {"instance_group_name": "gpus", "instance_type": "ml.p4d.24xlarge", "hosts": ["algo-2", "algo-3"]},
    ],
    "network_interface_name": "eth0",
    "topology": [{"hostName": "algo-1", "capacityUnitId": "u1"}],
}


def load(base: Path, **variables: str) -> TrainingEnvironment:
    return TrainingEnvironment.load({"SAGEMAKER_BASE_DIR": str(base), **variables})


def test_whole_job_is_read(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", HOMOGENEOUS)
    write_config(tmp_path, "checkpointconfig.json", {"LocalPath": "/opt/ml/checkpoints"})
    write_config(
        tmp_path, "hyperparameters.json", {"sagemaker_program": '"a.py"', "x": "1", "_tuning_objective_metric": "loss"}
    )
    write_config(
        tmp_path,
        "inputdataconfig.json",
        {
            "train": {"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO", "ShuffleConfig": {"Seed": 3}},
            "test": {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key", "ContentType": "text/csv"},
        },
    )
    environment = load(tmp_path, TRAINING_JOB_NAME="job", AWS_REGION="eu-west-1")
    assert environment.hyperparameters == {"x": 1}
    assert environment.tuning_objective_metric == "loss"
    assert (environment.program, environment.job_name, environment.region) == ("a.py", "job", "eu-west-1")
    assert environment.checkpoint_directory == Path("/opt/ml/checkpoints")
    train, test = environment.channels["train"], environment.channels["test"]
    assert (train.mode, train.record_wrapper, train.shuffle_seed) == (InputMode.PIPE, RecordWrapper.RECORD_IO, 3)
    assert (test.distribution, test.content_type) == (Distribution.SHARDED_BY_S3_KEY, "text/csv")
    assert test.path == tmp_path / "input/data/test"


def test_variable_beats_hyperparameter(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    write_config(tmp_path, "hyperparameters.json", {"sagemaker_program": "a.py"})
    assert load(tmp_path, SAGEMAKER_PROGRAM="b.py").program == "b.py"


def test_local_modes_four_keys_are_enough(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST | {"current_instance_type": "local"})
    cluster = load(tmp_path).cluster
    assert (cluster.hosts, cluster.host_rank, cluster.is_heterogeneous) == (("algo-1",), 0, False)


def test_heterogeneous_group_is_read_from_the_files_own_key(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", HETEROGENEOUS)
    cluster = load(tmp_path).cluster
    assert cluster.is_heterogeneous
    assert (cluster.current_group, cluster.current_group_hosts) == ("gpus", ("algo-2", "algo-3"))


def test_interface_that_does_not_exist_is_not_used(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST | {"network_interface_name": "ethwe"})
    cluster = read_cluster(ContainerPaths(tmp_path))
    assert cluster.network_interface == "ethwe"
    assert cluster.usable_interface(tmp_path) is None
    (tmp_path / "eth0").touch()
    assert cluster.usable_interface(tmp_path) == "eth0"
    (tmp_path / "ethwe").touch()
    assert cluster.usable_interface(tmp_path) == "ethwe"


@pytest.mark.parametrize(
    ("name", "content", "field", "message"),
    [
        ("resourceconfig.json", None, None, "is missing"),
        ("resourceconfig.json", {}, "current_host", "is missing; expected a string"),
        ("resourceconfig.json", {"current_host": "a", "hosts": "a"}, "hosts", 'is "a"; expected a list'),
        ("resourceconfig.json", {"current_host": "a", "hosts": []}, "hosts", "expected a list of at least one string"),
        ("resourceconfig.json", {"current_host": "a", "hosts": ["b"]}, "current_host", "not among the hosts"),
        ("inputdataconfig.json", {"train": "x"}, "train", "is not an object"),
        ("inputdataconfig.json", {"train": {"TrainingInputMode": "Tape"}}, "train.TrainingInputMode", '"FastFile"'),
        ("inputdataconfig.json", "{", None, "is not JSON"),
        ("checkpointconfig.json", {"LocalPath": 3}, "LocalPath", "is 3; expected a string"),
        ("hyperparameters.json", {"sagemaker_container_log_level": "loud"}, "sagemaker_container_log_level", "20"),
    ],
)
def test_damaged_or_missing_file_is_named_with_its_field(
    tmp_path: Path, name: str, content: Any, field: str | None, message: str
) -> None:
    if name != "resourceconfig.json":
        write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    if content is not None:
        write_config(tmp_path, name, content)
    with pytest.raises(ConfigurationFileError) as caught:
        load(tmp_path)
    assert caught.value.path == tmp_path / "input/config" / name
    assert caught.value.field == field
    assert message in str(caught.value)


def test_bad_variable_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    with pytest.raises(SettingError, match="SAGEMAKER_CONTAINER_LOG_LEVEL"):
        load(tmp_path, SAGEMAKER_CONTAINER_LOG_LEVEL="loud")


def test_missing_channel_names_those_that_were_given(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    write_config(tmp_path, "inputdataconfig.json", {"test": {}, "train": {}})
    with pytest.raises(MissingChannelError, match=r"'validation' was not given.*'test', 'train'"):
        require_channel(load(tmp_path).channels, "validation")


def test_sm_variables_of_hyperparameters_are_the_toolkits(tmp_path: Path) -> None:
    golden = {
        "learning-rate": 0.001, "epochs": 3, "use_amp": True, "dbg": False, "b": "x y", "layers": [1, 2, "a"],
        "opt": {"wd": 0.1, "beta": [1, 2]}, "nothing": None, "s": "adam", "u": "é", "big": 1e-7, "k": 5,
    }  # fmt: skip
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    write_config(tmp_path, "hyperparameters.json", {key: json.dumps(value) for key, value in golden.items()})
    variables = sm_variables(load(tmp_path))
    expected = {
        "SM_HP_LEARNING-RATE": "0.001", "SM_HP_LEARNING_RATE": "0.001", "SM_HP_EPOCHS": "3", "SM_HP_USE_AMP": "true",
        "SM_HP_DBG": "false", "SM_HP_B": "x y", "SM_HP_LAYERS": '[1,2,"a"]', "SM_HP_OPT": '{"beta":[1,2],"wd":0.1}',
        "SM_HP_NOTHING": "", "SM_HP_S": "adam", "SM_HP_U": "é", "SM_HP_BIG": "1e-07", "SM_HP_K": "5",
    }  # fmt: skip
    assert {name: value for name, value in variables.items() if name.startswith("SM_HP_")} == expected
    assert json.loads(variables["SM_HPS"]) == golden


def test_sm_variables_of_the_cluster(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", HETEROGENEOUS)
    write_config(
        tmp_path,
        "hyperparameters.json",
        {"sagemaker_distribution_instance_groups": '["gpus"]', "sagemaker_program": "t.py"},
    )
    write_config(tmp_path, "inputdataconfig.json", {"my-data.v1": {"TrainingInputMode": "File"}})
    variables = sm_variables(load(tmp_path, TRAINING_JOB_NAME="job"))
    assert variables["SM_HOSTS"] == '["algo-1","algo-2","algo-3"]'
    assert variables["SM_CURRENT_HOST"] == "algo-3"
    assert variables["SM_CURRENT_INSTANCE_GROUP"] == "gpus"
    assert variables["SM_CURRENT_INSTANCE_GROUP_HOSTS"] == '["algo-2","algo-3"]'
    assert variables["SM_INSTANCE_GROUPS"] == '["cpus","gpus"]'
    assert json.loads(variables["SM_INSTANCE_GROUPS_DICT"])["cpus"]["hosts"] == ["algo-1"]
    assert variables["SM_DISTRIBUTION_INSTANCE_GROUPS"] == '["gpus"]'
    assert variables["SM_IS_HETERO"] == "true"
    assert json.loads(variables["SM_TOPOLOGY"]) == HETEROGENEOUS["topology"]
    assert json.loads(variables["SM_RESOURCE_CONFIG"]) == HETEROGENEOUS
    assert variables["SM_CHANNEL_MY-DATA.V1"] == variables["SM_CHANNEL_MY_DATA_V1"]
    assert (variables["SM_MODULE_NAME"], variables["SM_USER_ENTRY_POINT"]) == ("t", "t.py")
    assert variables["SM_FRAMEWORK_MODULE"] == ""
    assert (variables["SM_HOST_COUNT"], variables["SM_CURRENT_HOST_RANK"]) == ("3", "2")
    whole = json.loads(variables["SM_TRAINING_ENV"])
    assert whole["distribution_hosts"] == ["algo-2", "algo-3"]
    assert (whole["master_hostname"], whole["is_master"], whole["job_name"]) == ("algo-2", False, "job")


def test_topology_is_given_only_where_the_platform_gives_it(tmp_path: Path) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    assert "SM_TOPOLOGY" not in sm_variables(load(tmp_path))


# Every name of the earlier toolkit's table and of SDK v3's that makes sense without its drivers.
NAMES = [
    "HOSTS",
    "CURRENT_HOST",
    "NETWORK_INTERFACE_NAME",
    "CURRENT_INSTANCE_TYPE",
    "CURRENT_INSTANCE_GROUP",
    "CURRENT_INSTANCE_GROUP_HOSTS",
    "INSTANCE_GROUPS",
    "INSTANCE_GROUPS_DICT",
    "DISTRIBUTION_INSTANCE_GROUPS",
    "IS_HETERO",
    "RESOURCE_CONFIG",
    "INPUT_DATA_CONFIG",
    "HPS",
    "FRAMEWORK_PARAMS",
    "USER_ENTRY_POINT",
    "USER_ARGS",
    "MODULE_NAME",
    "MODULE_DIR",
    "FRAMEWORK_MODULE",
    "LOG_LEVEL",
    "INPUT_DIR",
    "INPUT_CONFIG_DIR",
    "OUTPUT_DIR",
    "OUTPUT_DATA_DIR",
    "OUTPUT_INTERMEDIATE_DIR",
    "MODEL_DIR",
    "CHANNELS",
    "NUM_CPUS",
    "NUM_GPUS",
    "NUM_NEURONS",
    "TRAINING_ENV",
    "INPUT_DATA_DIR",
    "OUTPUT_FAILURE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "HOST_COUNT",
    "CURRENT_HOST_RANK",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_of_the_table_is_given(tmp_path: Path, name: str) -> None:
    write_config(tmp_path, "resourceconfig.json", ONE_HOST)
    assert f"SM_{name}" in sm_variables(load(tmp_path))
