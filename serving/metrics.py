"""What Prometheus scrapes, read from the catalog when it asks, so that no request pays for it."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .catalog import ModelCatalog
from .lifecycle import State
from .upkeep import Upkeep

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Every label value is a time series for ever: the busiest models have their own, the others one together.
MOST_MODELS = 100
OTHERS = "(others)"


class _Collector:
    def __init__(self, catalog: ModelCatalog, upkeep: Upkeep) -> None:
        self._catalog = catalog
        self._upkeep = upkeep

    def collect(self) -> Iterable[Metric]:
        """Return all metrics, as prometheus_client asks for them."""
        records = self._catalog.records()
        table = self._catalog.table
        states = Counter(record.state for record in records)
        models = GaugeMetricFamily("mooring_models", "Models by state.", labels=["state"])
        for state in State:
            models.add_metric([state.value], states[state])
        yield models
        requests = CounterMetricFamily("mooring_model_requests", "Requests taken, by model.", labels=["model"])
        queued = GaugeMetricFamily("mooring_model_requests_under_way", "Requests inside, by model.", labels=["model"])
        busiest = sorted(records, key=lambda record: -record.hits)
        for record in busiest[:MOST_MODELS]:
            requests.add_metric([record.name], record.hits)
            queued.add_metric([record.name], record.leases)
        if len(busiest) > MOST_MODELS:
            requests.add_metric([OTHERS], sum(record.hits for record in busiest[MOST_MODELS:]))
            queued.add_metric([OTHERS], sum(record.leases for record in busiest[MOST_MODELS:]))
        yield requests
        yield queued
        memory = GaugeMetricFamily("mooring_memory_bytes", "Memory for models, and what is held.", labels=["what"])
        memory.add_metric(["budget"], table.budget)
        memory.add_metric(["models"], table.used)
        memory.add_metric(["processes"], self._upkeep.proportional_bytes)
        yield memory


def render(catalog: ModelCatalog, upkeep: Upkeep) -> bytes:
    """Return all metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(catalog, upkeep))
    return generate_latest(registry)
