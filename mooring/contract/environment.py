"""The environment of a training job: everything the platform wrote, read once, as one value.

This is the one module that reads the process's variables; everything else is given them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .channels import Channel, read_channels
from .cluster import Cluster, read_cluster
from .config_files import read_object, take
from .errors import ConfigurationFileError, SettingError
from .hyperparameters import TUNING_OBJECTIVE, read_hyperparameters
from .paths import ContainerPaths
from .resources import gpu_count, has_efa, neuron_count, usable_cpus

DEFAULT_LOG_LEVEL = 20
# A folder where processes that listen for a stop leave a file named by their id; the first process signals those.
LEADERS_VARIABLE = "MOORING_LEADERS"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_level(variables: Mapping[str, str]) -> int:
    """Return the level that SAGEMAKER_CONTAINER_LOG_LEVEL asks for, before anything else has been read."""
    level = variables.get("SAGEMAKER_CONTAINER_LOG_LEVEL", "")
    return int(level) if level.isdecimal() else DEFAULT_LOG_LEVEL


def process_variables() -> dict[str, str]:
    """Return the variables of this process."""
    return dict(os.environ)


@dataclass(frozen=True)
class TrainingEnvironment:
    """A training job as its container sees it."""

    paths: ContainerPaths
    hyperparameters: Mapping[str, Any]
    framework_parameters: Mapping[str, Any]
    tuning_objective_metric: str | None
    channels: Mapping[str, Channel]
    input_data_config: Mapping[str, Any]
    cluster: Cluster
    checkpoint_directory: Path
    program: str | None
    submit_directory: str | None
    training_module: str | None
    job_name: str | None
    region: str | None
    log_level: int
    cpus: int
    gpus: int
    neurons: int
    has_efa: bool
    variables: Mapping[str, str]

    @classmethod
    def load(cls, variables: Mapping[str, str]) -> "TrainingEnvironment":
        """Read the job's files and variables. A variable beats the hyperparameter of the same meaning.

        Raises `ConfigurationFileError` naming file and field, `SettingError` naming the variable.
        """
        paths = ContainerPaths.from_variables(variables)
        given = read_hyperparameters(paths)
        channels, input_data_config = read_channels(paths)

        def either(variable: str, hyperparameter: str) -> str | None:
            return variables.get(variable) or given.reserved.get(hyperparameter) or None

        return cls(
            paths=paths,
            hyperparameters=given.user,
            framework_parameters=given.framework,
            tuning_objective_metric=given.reserved.get(TUNING_OBJECTIVE),
            channels=channels,
            input_data_config=input_data_config,
            cluster=read_cluster(paths),
            checkpoint_directory=checkpoint_directory(paths),
            program=either("SAGEMAKER_PROGRAM", "sagemaker_program"),
            submit_directory=either("SAGEMAKER_SUBMIT_DIRECTORY", "sagemaker_submit_directory"),
            training_module=variables.get("SAGEMAKER_TRAINING_MODULE") or None,
            job_name=variables.get("TRAINING_JOB_NAME") or either("SAGEMAKER_JOB_NAME", "sagemaker_job_name"),
            region=variables.get("AWS_REGION") or either("SAGEMAKER_REGION", "sagemaker_region"),
            log_level=_log_level(variables, given.reserved, paths),
            cpus=usable_cpus(),
            gpus=gpu_count(),
            neurons=neuron_count(),
            has_efa=has_efa(),
            variables=variables,
        )


def checkpoint_directory(paths: ContainerPaths) -> Path:
    """Return the folder that the platform syncs checkpoints from. Raises `ConfigurationFileError`."""
    file = paths.checkpoint_config_file
    content = read_object(file) or {}
    given = take(content, "LocalPath", str, file, "")
    return Path(given) if given else paths.checkpoints


def _log_level(variables: Mapping[str, str], reserved: Mapping[str, Any], paths: ContainerPaths) -> int:
    variable = variables.get("SAGEMAKER_CONTAINER_LOG_LEVEL")
    given = variable or reserved.get("sagemaker_container_log_level", DEFAULT_LOG_LEVEL)
    if str(given).isdecimal():
        return int(given)
    if variable:
        raise SettingError("SAGEMAKER_CONTAINER_LOG_LEVEL", variable, "a whole number such as 20")
    raise ConfigurationFileError(
        paths.hyperparameters_file, "sagemaker_container_log_level", f'is "{given}"; expected a whole number such as 20'
    )
