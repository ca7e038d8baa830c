"""Metrics that a handler collects by itself; the context's own go to Mooring's log."""

from typing import Any

from .dimension import Dimension


class MetricsStore:
    """Keeps what is added, newest last, as (name, value, unit, dimensions)."""

    def __init__(self, request_ids: Any, model_name: str) -> None:
        self.request_ids = request_ids
        self.model_name = model_name
        self.store: list[tuple[str, Any, str | None, list[Dimension]]] = []

    def add_metric(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """Keep any metric."""
        self.store.append((name, value, unit, [*(dimensions or ()), Dimension("ModelName", self.model_name)]))

    def add_counter(
        self, name: str, value: int, idx: int | None = None, dimensions: list[Dimension] | None = None
    ) -> None:
        """Keep a count."""
        self.add_metric(name, value, idx, "count", dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """Keep a duration."""
        self.add_metric(name, value, idx, unit, dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """Keep a size."""
        self.add_metric(name, value, idx, unit, dimensions)

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: list[Dimension] | None = None
    ) -> None:
        """Keep a share."""
        self.add_metric(name, value, idx, "percent", dimensions)

    def add_error(self, name: str, value: str, dimensions: list[Dimension] | None = None) -> None:
        """Keep an error."""
        self.add_metric(name, value, None, "", dimensions)
