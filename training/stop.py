"""Stopping together: a signal that reaches any rank at any moment makes all ranks stop after the same step."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist

from mooring.contract.environment import LEADERS_VARIABLE, process_variables

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Listens for SIGTERM and SIGINT while its `with` block runs. A second signal ends the process at once.

    Each step's flag is reduced while the next step computes, so agreeing holds nothing up; the agreed stop comes one
    step after the signal. Enter and leave on every rank alike: its reductions have a group of their own.
    """

    def __init__(self) -> None:
        self._was_asked = False
        self._is_agreed = False
        self._before: dict[int, Any] = {}
        self._group = dist.new_group(backend="gloo") if dist.get_world_size() > 1 else None
        leaders = process_variables().get(LEADERS_VARIABLE)
        self._file = Path(leaders, str(os.getpid())) if leaders else None
        self._pending: tuple[dist.Work, torch.Tensor] | None = None

    def agreed(self) -> bool:
        """Whether to stop now. Call it once a step on every rank; it is true on all of them after the same step."""
        if self._group is None:
            self._is_agreed = self._was_asked
            return self._is_agreed
        self._is_agreed = self._settle()
        flag = torch.tensor([self._was_asked], dtype=torch.uint8)
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (work, flag)
        return self._is_agreed

    def _settle(self) -> bool:
        if self._pending is None:
            return False
        work, flag = self._pending
        self._pending = None
        work.wait()
        return bool(flag.item())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            os._exit(128 + number)
        self._was_asked = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        if self._file is not None:
            self._file.touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._settle()
        if self._is_agreed:
            return  # the signal that another rank got may reach this one yet, and must not end what it does last
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)
