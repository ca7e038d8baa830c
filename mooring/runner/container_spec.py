"""What to run, as a value: a container of ours by its command, its files and its variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ContainerSpec:
    """One container. `base` is the folder that it sees as /opt/ml."""

    command: tuple[str, ...]
    base: Path
    variables: Mapping[str, str] = field(default_factory=dict)
