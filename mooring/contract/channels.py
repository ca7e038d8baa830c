"""The input channels of a training job, as inputdataconfig.json describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from .config_files import read_object, take
from .errors import ConfigurationFileError, MissingChannelError
from .paths import ContainerPaths

Choice = TypeVar("Choice", bound=Enum)


class InputMode(Enum):
    """How a channel's data arrives."""

    FILE = "File"  # downloaded whole before the job starts
    PIPE = "Pipe"  # a FIFO per epoch
    FAST_FILE = "FastFile"  # a mount that streams; read it sequentially


class Distribution(Enum):
    """Whether each host gets all of a channel or a share of it."""

    FULLY_REPLICATED = "FullyReplicated"
    SHARDED_BY_S3_KEY = "ShardedByS3Key"


class RecordWrapper(Enum):
    """How records are framed in a pipe."""

    NONE = "None"
    RECORD_IO = "RecordIO"


@dataclass(frozen=True)
class Channel:
    """One input channel. `path` may be empty on a host whose share of a sharded channel is nothing."""

    name: str
    path: Path
    mode: InputMode = InputMode.FILE
    content_type: str | None = None
    distribution: Distribution = Distribution.FULLY_REPLICATED
    record_wrapper: RecordWrapper = RecordWrapper.NONE
    compression: str | None = None
    shuffle_seed: int | None = None


def read_channels(paths: ContainerPaths) -> tuple[dict[str, Channel], dict[str, Any]]:
    """Return the job's channels by name, and the file as it is. Raises `ConfigurationFileError`."""
    file = paths.input_data_config_file
    content = read_object(file) or {}
    return {name: _channel(name, fields, paths) for name, fields in content.items()}, content


def _channel(name: str, fields: Any, paths: ContainerPaths) -> Channel:
    file = paths.input_data_config_file
    if not isinstance(fields, dict):
        raise ConfigurationFileError(file, name, "is not an object; expected the channel's configuration")
    shuffle = take(fields, "ShuffleConfig", dict, file, {})
    return Channel(
        name=name,
        path=paths.channel(name),
        mode=_choice(fields, name, "TrainingInputMode", InputMode.FILE, file),
        content_type=fields.get("ContentType"),
        distribution=_choice(fields, name, "S3DistributionType", Distribution.FULLY_REPLICATED, file),
        record_wrapper=_choice(fields, name, "RecordWrapperType", RecordWrapper.NONE, file),
        compression=fields.get("CompressionType"),
        shuffle_seed=shuffle.get("Seed"),
    )


def _choice(fields: Mapping[str, Any], channel: str, field: str, default: Choice, file: Path) -> Choice:
    value = fields.get(field)
    if value is None:
        return default
    kind = type(default)
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(f'"{member.value}"' for member in kind)
        raise ConfigurationFileError(file, f"{channel}.{field}", f'is "{value}"; expected one of {known}') from error


def require_channel(channels: Mapping[str, Channel], name: str) -> Channel:
    """Return a channel that a program cannot do without. Raises `MissingChannelError`, which names those given."""
    if name not in channels:
        raise MissingChannelError(name, sorted(channels))
    return channels[name]
