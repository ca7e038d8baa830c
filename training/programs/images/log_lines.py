"""What the program says of an epoch: the lines of the built-in algorithm's log, and metrics under the built-in's names.

The platform publishes the built-in's train:accuracy, train:accuracy:epoch and validation:accuracy from these lines.
"""

import logging
import statistics
import time
from collections.abc import Mapping

import torch
import torch.distributed as dist

from mooring.training.metrics import report

from .objective import Objective, Tally

logger = logging.getLogger(__name__)

BATCHES_PER_LINE = 20
TRAIN, VALIDATION = "Train", "Validation"


class EpochLog:
    """Counts and times an epoch, numbered from 0, from the batch on that a run begins or resumes with."""

    def __init__(self, epoch: int, batch: int, batch_size: int, objective: Objective, device: torch.device) -> None:
        self._epoch = epoch
        self._batch = batch
        self._batch_size = batch_size
        self._tally = Tally(objective, device)
        self._began = time.perf_counter()
        self._ends = [self._began]  # of steps

    def add(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Count a batch; `loss` is the sum of its images'. Every few batches the log says how fast they go."""
        self._tally.add(logits, labels, loss)
        self._batch += 1
        self._ends.append(time.perf_counter())
        if self._batch % BATCHES_PER_LINE == 0 and dist.get_rank() == 0:
            accuracy, ends = self._tally.accuracy(), self._ends[-1 - BATCHES_PER_LINE :]
            speed = (len(ends) - 1) * self._batch_size / (ends[-1] - ends[0])
            line = "Epoch[%d] Batch [%d]\tSpeed: %.2f samples/sec\taccuracy=%f"
            logger.info(line, self._epoch, self._batch, speed, accuracy)

    def tell(self, step: int, validation: Mapping[str, float], **more: float) -> None:
        """Log and report what the epoch came to. Call it on all ranks."""
        train = self._tally.of_all_ranks()
        if dist.get_rank() != 0:
            return
        for name, value in train.items():
            logger.info("Epoch[%d] %s-%s=%f", self._epoch, TRAIN, name, value)
        logger.info("Epoch[%d] Time cost=%.3f", self._epoch, self._ends[-1] - self._began)
        for name, value in validation.items():
            logger.info("Epoch[%d] %s-%s=%f", self._epoch, VALIDATION, name, value)
        metrics = {f"train:{name}": value for name, value in train.items()}
        metrics |= {f"validation:{name}": value for name, value in validation.items()}
        report(epoch=self._epoch + 1, step=step, **metrics, step_ms=self._step_ms(), **more)

    def _step_ms(self) -> float:
        """Return the median time from one step's end to the next one's, waiting for data included."""
        times = [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)]
        return 1000 * statistics.median(times) if times else 0.0
