"""Hyperparameters: read as the platform writes them, and turned into command-line arguments in both SDKs' dialects."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .config_files import read_object
from .errors import ConfigurationFileError
from .paths import ContainerPaths

HYDRA_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:@%+\-]*")
TUNING_OBJECTIVE = "_tuning_objective_metric"
PLATFORM_PREFIX = "sagemaker_"
# Either names a ready-made program. The launcher sets the variable for the program that it has chosen.
ALGORITHM = "algorithm"
ALGORITHM_VARIABLE = "MOORING_ALGORITHM"
# What the earlier toolkit takes for itself; other sagemaker_* keys are handed on to the framework.
RESERVED = frozenset(
    {
        "sagemaker_program",
        "sagemaker_submit_directory",
        "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_region",
        "sagemaker_container_log_level",
        "sagemaker_job_name",
        "default_user_module_name",
        "sagemaker_s3_output",
        TUNING_OBJECTIVE,
    }
)


class Dialect(Enum):
    """How a hyperparameter becomes an argument."""

    SDK_V2 = "sdk-v2"  # sorted, one dash for one letter, Python's spelling of values
    SDK_V3 = "sdk-v3"  # in the order of the file, always two dashes, JSON values
    STORE_TRUE = "store-true"  # as SDK v2, but true is a bare flag and false is left out
    NARGS = "nargs"  # as SDK v2, but a list is several values: --layers 1 2 3
    HYDRA = "hydra"  # key=value overrides, in the order of the file


@dataclass(frozen=True)
class GivenHyperparameters:
    """The three kinds of entries in hyperparameters.json, decoded, in the order of the file."""

    user: Mapping[str, Any]
    framework: Mapping[str, Any]
    reserved: Mapping[str, Any]


def read_hyperparameters(paths: ContainerPaths) -> GivenHyperparameters:
    """Return what was given to the job; nothing if there is no file. Raises `ConfigurationFileError`."""
    file = paths.hyperparameters_file
    decoded = {key: decode(value) for key, value in (read_object(file) or {}).items()}
    reserved = {key: value for key, value in decoded.items() if key in RESERVED}
    for key in ("sagemaker_program", "sagemaker_submit_directory"):
        if not isinstance(reserved.get(key, ""), str):
            raise ConfigurationFileError(file, key, f"is {json.dumps(reserved[key])}; expected a string")
    return GivenHyperparameters(
        user={key: value for key, value in decoded.items() if not _is_platforms(key)},
        framework={key: value for key, value in decoded.items() if _is_platforms(key) and key not in RESERVED},
        reserved=reserved,
    )


def _is_platforms(key: str) -> bool:
    return key in RESERVED or key.startswith(PLATFORM_PREFIX)


def decode(value: Any) -> Any:
    """Decode one value: JSON where it is JSON, else the string as it is.

    >>> decode("1e-3"), decode('"adam"'), decode("adam"), decode("True"), decode("007")
    (0.001, 'adam', 'adam', 'True', '007')
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:  # also a number with too many digits
        return value


def to_arguments(hyperparameters: Mapping[str, Any], dialect: Dialect = Dialect.SDK_V2) -> list[str]:
    """Return the argument list for a script.

    >>> to_arguments({"k": 5, "use_amp": True, "layers": [1, "a"]})
    ['-k', '5', '--layers', "[1, 'a']", '--use_amp', 'True']
    >>> to_arguments({"k": 5, "use_amp": True, "layers": [1, "a"]}, Dialect.SDK_V3)
    ['--k', '5', '--use_amp', 'true', '--layers', '[1, "a"]']
    >>> to_arguments({"use_amp": True, "debug": False}, Dialect.STORE_TRUE)
    ['--use_amp']
    >>> to_arguments({"layers": [1, 2]}, Dialect.NARGS)
    ['--layers', '1', '2']
    >>> to_arguments({"model.lr": 0.1, "name": "x y"}, Dialect.HYDRA)
    ['model.lr=0.1', "name='x y'"]
    """
    if dialect is Dialect.HYDRA:
        return [f"{key}={_hydra_text(value)}" for key, value in hyperparameters.items()]
    if dialect is Dialect.SDK_V3:
        return [part for key, value in hyperparameters.items() for part in (f"--{key}", json_text(value))]
    arguments: list[str] = []
    for key in sorted(hyperparameters):
        value = hyperparameters[key]
        values = [_python_text(value)]
        if dialect is Dialect.STORE_TRUE and isinstance(value, bool):
            if not value:
                continue
            values = []
        elif dialect is Dialect.NARGS and isinstance(value, list):
            values = [_python_text(item) for item in value]
        arguments += [f"-{key}" if len(key) == 1 else f"--{key}", *values]
    return arguments


def _python_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={value[key]}" for key in sorted(value))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value)


def _hydra_text(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides: strings that are more than a word are quoted."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra_text, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    # A bare word that reads as something else, such as a number, has to be quoted to stay a string.
    if HYDRA_WORD.fullmatch(value) and decode(value.lower()) == value.lower():
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def json_text(value: Any) -> str:
    """Return a value as SDK v3 writes it: strings bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def compact_text(value: Any) -> str:
    """Return a value as the earlier toolkit writes it into variables: strings bare, None empty, else compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)
