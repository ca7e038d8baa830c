"""Mixed precision: what is computed in 16 bits, and how gradients are kept from vanishing there."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """How a device computes. Weights stay in 32 bits; `scaler` does nothing where gradients need no scale."""

    device: torch.device
    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler

    @classmethod
    def of(cls, name: str, device: torch.device) -> "Precision":
        """Return the precision that the hyperparameter precision_dtype names, as a device has it."""
        is_mixed = name == "float16"
        on_gpu = device.type == "cuda"
        if is_mixed and not on_gpu:
            logger.info("precision_dtype is float16, which a CPU is slow in: bfloat16 instead")
        dtype = (torch.float16 if on_gpu else torch.bfloat16) if is_mixed else None
        return cls(device, dtype, torch.amp.GradScaler(device.type, enabled=is_mixed and on_gpu))

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in 16 bits, where that is safe, for the length of a block."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)
