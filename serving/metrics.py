"""What Prometheus scrapes, read from the catalog when it asks, so that no request pays for it."""

from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .catalog import ModelCatalog
from .door import Door
from .histogram import Histogram
from .lifecycle import State
from .residency import ModelRecord
from .tally import BATCH
from .upkeep import Upkeep

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Every label value is a time series for ever, and a histogram is twenty: the busiest models have their own, the others
# one together.
MOST_MODELS = 100
MOST_HISTOGRAMS = 20
OTHERS = "(others)"


class _Collector:
    def __init__(self, door: Door, catalog: ModelCatalog, upkeep: Upkeep) -> None:
        self._door = door
        self._catalog = catalog
        self._upkeep = upkeep

    def collect(self) -> Iterable[Metric]:
        """Return all metrics, as prometheus_client asks for them."""
        busiest = sorted(self._catalog.records(), key=lambda record: -record.hits)
        yield from self._of_models(busiest)
        yield from _of_times(busiest)
        yield from self._of_processes()
        errors = CounterMetricFamily(
            "mooring_errors", "Requests answered with an error, by status and reason.", labels=["status", "error"]
        )
        for (status, error), count in self._door.refused.items():
            errors.add_metric([str(status), error], count)
        yield errors

    def _of_models(self, busiest: Sequence[ModelRecord]) -> Iterable[Metric]:
        states = Counter(record.state for record in busiest)
        models = GaugeMetricFamily("mooring_models", "Models by state.", labels=["state"])
        for state in State:
            models.add_metric([state.value], states[state])
        yield models
        events = CounterMetricFamily(
            "mooring_model_events",
            "Models loaded, failed, cancelled while loading, unloaded, evicted.",
            labels=["event"],
        )
        for event in ("loaded", "failed", "cancelled", "unloaded", "evicted"):
            events.add_metric([event], self._catalog.table.events[event])
        yield events
        requests = CounterMetricFamily("mooring_model_requests", "Requests taken, by model.", labels=["model"])
        queued = GaugeMetricFamily("mooring_model_requests_under_way", "Requests inside, by model.", labels=["model"])
        for record in busiest[:MOST_MODELS]:
            requests.add_metric([record.name], record.hits)
            queued.add_metric([record.name], record.leases)
        if len(busiest) > MOST_MODELS:
            requests.add_metric([OTHERS], sum(record.hits for record in busiest[MOST_MODELS:]))
            queued.add_metric([OTHERS], sum(record.leases for record in busiest[MOST_MODELS:]))
        yield requests
        yield queued

    def _of_processes(self) -> Iterable[Metric]:
        table, pool = self._catalog.table, self._catalog.pool
        memory = GaugeMetricFamily("mooring_memory_bytes", "Memory for models, and what is held.", labels=["what"])
        memory.add_metric(["budget"], table.budget)
        memory.add_metric(["models"], table.used)
        memory.add_metric(["processes"], self._upkeep.proportional_bytes)
        yield memory
        hosts = GaugeMetricFamily("mooring_hosts", "Processes that hold models.", labels=["kind"])
        shared = sum(link.plan.is_shared for link in pool.links)
        hosts.add_metric(["shared"], shared)
        hosts.add_metric(["own"], len(pool.links) - shared)
        yield hosts
        deaths = CounterMetricFamily("mooring_host_deaths", "Processes with models that ended unasked.")
        deaths.add_metric([], pool.deaths)
        yield deaths


def _of_times(busiest: Sequence[ModelRecord]) -> Iterable[Metric]:
    seconds = HistogramMetricFamily(
        "mooring_model_seconds",
        "Seconds by model: of a request in all (total) and in its queue, of a batch in the stages of its handler.",
        labels=["model", "stage"],
    )
    batches = HistogramMetricFamily("mooring_model_batch_requests", "Requests in a batch, by model.", labels=["model"])
    named = [(record.name, [record]) for record in busiest[:MOST_HISTOGRAMS]]
    for name, records in [*named, (OTHERS, busiest[MOST_HISTOGRAMS:])]:
        for stage, histogram in _summed(records).items():
            buckets = list(histogram.cumulative())
            if stage == BATCH:
                batches.add_metric([name], buckets, histogram.total)
            else:
                seconds.add_metric([name, stage], buckets, histogram.total)
    yield seconds
    yield batches


def _summed(records: Iterable[ModelRecord]) -> dict[str, Histogram]:
    """Return the histograms of models, added up; none of models that were never asked."""
    summed: dict[str, Histogram] = {}
    for record in records:
        if record.hits:
            for stage, histogram in {"total": record.latency, **record.stages}.items():
                summed.setdefault(stage, Histogram(histogram.bounds)).add(histogram.total, histogram.counts)
    return summed


def render(door: Door, catalog: ModelCatalog, upkeep: Upkeep) -> bytes:
    """Return all metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(door, catalog, upkeep))
    return generate_latest(registry)
