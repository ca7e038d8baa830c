"""How fast a run goes, and how long it has still to go."""

import time

from mooring.training.data.progress import time_text

from .schedule import Schedule


class Pace:
    """How fast steps go, from the step on that a run begins or resumes with."""

    def __init__(self, step: int) -> None:
        self._first = step
        self._began = time.monotonic()

    def told(self, step: int, schedule: Schedule) -> str:
        """Say where a run is, its rate, and the time that is left at that rate."""
        done, seconds = step - self._first, max(time.monotonic() - self._began, 1e-9)
        left = time_text((schedule.steps - step) * seconds / max(done, 1))
        rate = done * schedule.batch_size / seconds
        return f"step {step} of {schedule.steps} ({step / schedule.steps:.0%}), {rate:.0f} texts/s, {left} left"
