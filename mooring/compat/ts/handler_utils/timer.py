"""The decorator around the steps of TorchServe's handlers."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any


def timed(func: Callable[..., Any]) -> Callable[..., Any]:
    """Report how long a step takes as a metric, where the handler's context is there to take it."""

    @wraps(func)
    def run(self: Any, *arguments: Any, **named: Any) -> Any:
        metrics = getattr(getattr(self, "context", None), "metrics", None)
        if metrics is None:
            return func(self, *arguments, **named)
        started = time.perf_counter()
        result = func(self, *arguments, **named)
        metrics.add_time(f"ts_handler_{func.__name__}", round((time.perf_counter() - started) * 1000, 2))
        return result

    return run
