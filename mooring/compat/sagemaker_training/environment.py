"""The training job under the toolkit's names, read from the same files and variables as Mooring's own."""

from collections.abc import Iterator, Mapping
from typing import Any

from mooring.contract import sm_variables
from mooring.contract.config_files import read_object
from mooring.contract.environment import TrainingEnvironment, process_variables
from mooring.contract.hyperparameters import decode
from mooring.contract.paths import ContainerPaths
from mooring.contract.resources import gpu_count, usable_cpus

from . import mapping, params

SAGEMAKER_BASE_PATH = "/opt/ml"
BASE_PATH_ENV = "SAGEMAKER_BASE_DIR"


def __getattr__(name: str) -> str:
    """Return one of the job's folders; the toolkit read, and made, them when it was imported."""
    paths = _paths()
    folders = {
        "base_dir": paths.base,
        "code_dir": paths.code,
        "model_dir": paths.model,
        "input_dir": paths.input,
        "input_config_dir": paths.input_config,
        "output_dir": paths.output,
        "output_data_dir": paths.output_data,
        "output_intermediate_dir": paths.output_intermediate,
    }
    if name not in folders:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return str(folders[name])


def read_hyperparameters() -> dict[str, Any]:
    """Return all hyperparameters, the platform's too, each decoded where it is JSON."""
    return {key: decode(value) for key, value in (read_object(_paths().hyperparameters_file) or {}).items()}


def read_resource_config() -> dict[str, Any]:
    """Return what resourceconfig.json says."""
    return dict(TrainingEnvironment.load(process_variables()).cluster.raw)


def read_input_data_config() -> dict[str, Any]:
    """Return what inputdataconfig.json says."""
    return dict(TrainingEnvironment.load(process_variables()).input_data_config)


def channel_path(channel: str) -> str:
    """Return the folder of a channel."""
    return str(_paths().input_data / channel)


def num_gpus() -> int:
    """Return the number of GPUs."""
    return gpu_count()


def num_cpus() -> int:
    """Return the number of CPUs that this container may use."""
    return usable_cpus()


class Environment(Mapping[str, Any]):
    """A snapshot of the job: each fact is an attribute, and an entry of this mapping."""

    def __init__(self) -> None:
        self._environment = TrainingEnvironment.load(process_variables())
        self._facts = {"topology": [], **sm_variables.training_env(self._environment)}

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("_facts", {})
        if name not in facts:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return facts[name]

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __str__(self) -> str:
        return str(dict(self))

    def properties(self) -> list[str]:
        """Return the names of all facts."""
        return sorted(self._facts)

    def sagemaker_s3_output(self) -> str | None:
        """Return where the SDK wants the output."""
        output: str | None = read_hyperparameters().get(params.S3_OUTPUT_LOCATION_PARAM)
        return output

    def to_cmd_args(self) -> list[str]:
        """Return the hyperparameters as a script's arguments."""
        return mapping.to_cmd_args(self._environment.hyperparameters)

    def to_env_vars(self) -> dict[str, str]:
        """Return the SM_* variables that a script finds."""
        return sm_variables.sm_variables(self._environment)


def _paths() -> ContainerPaths:
    return ContainerPaths.from_variables(process_variables())
