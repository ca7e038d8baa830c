"""What Prometheus scrapes, read from the catalog when it asks, so that no request pays for it."""

from collections.abc import Iterable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .catalog import ModelCatalog
from .door import Door
from .histogram import BATCH_BOUNDS, BOUNDS, cumulative
from .ledger import OTHERS, Ledger
from .lifecycle import State
from .residency import ModelRecord
from .tally import BATCH
from .upkeep import Upkeep

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Every label value is a time series for ever, and a histogram is twenty: the busiest models have their own, the others
# one together.
MOST_MODELS = 100
MOST_HISTOGRAMS = 20


class Metrics:
    """All metrics of a server. They live as long as it does, since what they told once they must not take back."""

    def __init__(self, door: Door, catalog: ModelCatalog, upkeep: Upkeep) -> None:
        self._door = door
        self._catalog = catalog
        self._upkeep = upkeep
        self._requests = Ledger(MOST_MODELS, lambda record: {"": [record.hits]})
        self._times = Ledger(MOST_HISTOGRAMS, _times)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        catalog.table.on_departure = self._close

    def render(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)

    def _close(self, record: ModelRecord) -> None:
        self._requests.close(record)
        self._times.close(record)

    def collect(self) -> Iterable[Metric]:
        """Return all metrics, as prometheus_client asks for them."""
        busiest = sorted(self._catalog.records(), key=lambda record: -record.hits)
        yield from self._of_models(busiest)
        yield from self._of_times(busiest)
        yield from self._of_processes()
        errors = CounterMetricFamily(
            "mooring_errors", "Requests answered with an error, by status and reason.", labels=["status", "error"]
        )
        for (status, error), count in self._door.refused.items():
            errors.add_metric([str(status), error], count)
        yield errors

    def _of_models(self, busiest: Sequence[ModelRecord]) -> Iterable[Metric]:
        models = GaugeMetricFamily("mooring_models", "Models by state.", labels=["state"])
        for state in State:
            models.add_metric([state.value], len(self._catalog.table.standing[state]))
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
        for name, counts in self._requests.told(busiest):
            if counts:
                requests.add_metric([name], counts[""][0])
        for record in busiest[:MOST_MODELS]:
            queued.add_metric([record.name], record.leases)
        queued.add_metric([OTHERS], sum(record.leases for record in busiest[MOST_MODELS:]))
        yield requests
        yield queued

    def _of_times(self, busiest: Sequence[ModelRecord]) -> Iterable[Metric]:
        seconds = HistogramMetricFamily(
            "mooring_model_seconds",
            "Seconds by model: of a request in all (total) and in its queue, of a batch in the stages of its handler.",
            labels=["model", "stage"],
        )
        batches = HistogramMetricFamily(
            "mooring_model_batch_requests", "Requests in a batch, by model.", labels=["model"]
        )
        for name, counted in self._times.told(busiest):
            for stage, (total, *counts) in counted.items():
                if stage == BATCH:
                    batches.add_metric([name], list(cumulative(BATCH_BOUNDS, counts)), total)
                else:
                    seconds.add_metric([name, stage], list(cumulative(BOUNDS, counts)), total)
        yield seconds
        yield batches

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
        fronts = GaugeMetricFamily("mooring_fronts", "Processes that speak HTTP for the front door.")
        fronts.add_metric([], self._door.fronts)
        yield fronts
        copies = GaugeMetricFamily("mooring_model_copies", "Shared processes that busy models have beyond their own.")
        copies.add_metric([], sum(resident.copies for resident in self._catalog.residents()))
        yield copies
        deaths = CounterMetricFamily("mooring_host_deaths", "Processes with models that ended unasked.")
        deaths.add_metric([], pool.deaths)
        yield deaths
        front_deaths = CounterMetricFamily("mooring_front_deaths", "Processes that speak HTTP that ended unasked.")
        front_deaths.add_metric([], self._door.front_deaths)
        yield front_deaths


def _times(record: ModelRecord) -> dict[str, list[float]]:
    """Return the sum and the counts of a model's histograms; none of a model that was never asked."""
    histograms = {"total": record.latency, **record.stages} if record.hits else {}
    return {stage: [histogram.total, *histogram.counts] for stage, histogram in histograms.items()}
