"""What a load is told beside the model's folder: threads, device, variables, and the model's own configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .model_config import ModelConfig


@dataclass(frozen=True)
class LoadTerms:
    """The terms on which a host loads a model."""

    threads: int = 1  # cores that libraries may compute with
    gpu_id: int | None = None  # index among the visible CUDA devices; None on a machine without one
    variables: Mapping[str, str] = field(default_factory=dict)  # the process's, read at the door
    config: ModelConfig = field(default_factory=ModelConfig)
