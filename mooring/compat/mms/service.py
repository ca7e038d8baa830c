"""The error by which a handler chooses its client's status."""

import logging
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)


class PredictionException(Exception):  # noqa: N818 - the name is the server's
    """Answered with its status and message."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        self.message = message
        self.error_code = error_code
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Log metrics, one a line."""
    for metric in metrics or ():
        logger.info("[METRICS]%s", metric)
