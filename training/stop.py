"""Stopping together: a signal that reaches any rank at any moment makes all ranks stop after the same step."""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist

from mooring.contract.environment import LEADERS_VARIABLE, process_variables

from .signal_pipe import STOP_SIGNALS

# A stop has two minutes; a tenth of a second is soon enough, and a reduction at every step of a few milliseconds is not
# free. The bound is for clocks that do not tell such steps apart.
ASK_S, MOST_STEPS = 0.1, 1000


def current_stop() -> "StopRequest | None":
    """Return the request whose `with` block runs in this process, for those who wait for anything but a step."""
    return StopRequest._current


class StopRequest:
    """Listens for SIGTERM and SIGINT while its `with` block runs. A second signal ends the process at once.

    Ranks ask each other after every step, or ten times a second where steps are shorter, and hear the answer while the
    next step computes. Enter and leave on every rank alike: its reductions have a group of their own.
    """

    _current: "ClassVar[StopRequest | None]" = None

    def __init__(self) -> None:
        self._was_asked = False
        self._is_agreed = False
        self._before: dict[int, Any] = {}
        self._group = dist.new_group(backend="gloo") if dist.get_world_size() > 1 else None
        leaders = process_variables().get(LEADERS_VARIABLE)
        self._file = Path(leaders, str(os.getpid())) if leaders else None
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._asked_at = time.monotonic()
        self._steps_between = 1  # the same on all ranks, as is what is left of them
        self._steps_left = 0

    @property
    def was_asked(self) -> bool:
        """Whether this process was told to stop; the others may not know yet."""
        return self._was_asked

    def agree(self) -> None:
        """Let `agreed` be true from now on. For who has found on all ranks alike that the run is to stop."""
        self._is_agreed = True

    def agreed(self) -> bool:
        """Whether to stop now. Call it once a step on every rank; it is true on all of them after the same step."""
        if self._group is None:
            self._is_agreed = self._is_agreed or self._was_asked
            return self._is_agreed
        self._hear()
        self._steps_left -= 1
        if self._steps_left <= 0:
            self._ask()
        return self._is_agreed

    def _ask(self) -> None:
        """Begin to tell the others whether we were asked to stop, and after how many steps we would ask again."""
        now = time.monotonic()
        step_s = max((now - self._asked_at) / self._steps_between, ASK_S / MOST_STEPS)
        self._asked_at = now
        steps = max(1, int(ASK_S / step_s))
        said = torch.tensor([self._was_asked, -steps], dtype=torch.int64)
        work = dist.all_reduce(said, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (work, said)

    def _hear(self) -> None:
        """Take the answer, if one is due: whether anybody was asked, and the steps that the slowest would wait."""
        if self._pending is None:
            return
        work, said = self._pending
        self._pending = None
        work.wait()
        was_asked, steps = said.tolist()
        self._is_agreed = self._is_agreed or bool(was_asked)
        self._steps_left = self._steps_between = -steps

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            os._exit(128 + number)
        self._was_asked = True

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        if self._file is not None:
            self._file.touch()
        StopRequest._current = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        StopRequest._current = None
        if kind is None:
            self._hear()
        if self._is_agreed:
            return  # the signal that another rank got may reach this one yet, and must not end what it does last
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)
