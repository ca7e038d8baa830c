"""Rows of throughput: requests a second and how long they take, of one model, by so many clients at once."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import servers
from .contestants import Contestant, Entry
from .models import EXPORTED, MODELS, Model
from .peer import CORES, Peer, Way
from .plan import Plan
from .progress import Progress
from .record import Row
from .running import DidNotStartError

# What can go wrong with one of them without ending the run.
FAILURES = (DidNotStartError, OSError, subprocess.SubprocessError, ValueError, RuntimeError)
START_S = 6.0
WARM_S = 1.0
TRY_S = 2.0
# For a model that fills the cores, and for one that does not.
SOME_CLIENTS = 16
MANY_CLIENTS = 64
LOOP_BATCH = 16
BARE_LOOPS = (
    Entry("bare loop", tuple(dict.fromkeys((Way(1), Way(CORES))))),
    Entry("bare loop, batched", tuple(dict.fromkeys((Way(1, LOOP_BATCH), Way(CORES, LOOP_BATCH))))),
)


def _entries(*peers: Peer) -> tuple[Entry, ...]:
    return tuple(Entry(peer.name, peer.ways, peer) for peer in peers)


HARD = _entries(servers.MOORING, servers.RAW_LOOP, servers.FASTAPI, servers.MULTI_MODEL_SERVER)
ROWS: dict[str, tuple[Entry, ...]] = {
    "tiny": _entries(*servers.SERVERS),
    "minilm": (*BARE_LOOPS, *HARD),
    "resnet": (*BARE_LOOPS, *HARD[:2]),
}


class Throughput:
    """One model, asked of all in turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries = ROWS[name]

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        taking = [entry for entry in self.entries if plan.takes(entry.name)]
        tries = sum(len(entry.ways) + (len(entry.ways) > 1) for entry in taking if entry.peer is not None)
        return tries * (START_S + WARM_S + TRY_S) + len(taking) * len(plan.clients) * plan.rounds * (plan.seconds + 0.3)

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: `name` -> `clients` -> a cell a round."""
        model = MODELS[self.name](folder if self.name == "tiny" else EXPORTED)
        with ExitStack() as stack:
            taking: dict[str, Contestant] = {}
            for entry in self.entries:
                if plan.takes(entry.name):
                    row.forget(entry.name, "failed")
                    with noting_failures(entry.name, row, progress):
                        way = self._best_way(entry, model, row, progress)
                        taking[entry.name] = stack.enter_context(entry.begun(model, way))
                        taking[entry.name].ask(SOME_CLIENTS, WARM_S)
            self._rounds(taking, plan, row, progress)

    def _best_way(self, entry: Entry, model: Model, row: Row, progress: Progress) -> Way:
        """Return the way in which it answers most, tried before the rounds and noted."""
        noted = row.noted(entry.name)
        if "best" in noted:
            return Way(**noted["best"])
        versions = entry.peer.versions() if entry.peer is not None else {}
        tried = {}
        for way in entry.ways if len(entry.ways) > 1 else ():
            with noting_failures(f"{entry.name}, {way}", row, progress), entry.begun(model, way) as contestant:
                clients = SOME_CLIENTS if model.fills_cores else MANY_CLIENTS
                contestant.ask(clients, WARM_S)
                tried[way] = contestant.ask(clients, TRY_S)["rps"]
                progress.say(f"{entry.name} with {way}: {tried[way]:,.0f} requests/s", 0.0)
        best = max(tried or entry.ways[:1], key=lambda way: tried.get(way, 0.0))
        rates = [vars(way) | {"rps": rps} for way, rps in tried.items()]
        row.note(entry.name, best=vars(best), tried=rates, versions=versions)
        return best

    def _rounds(self, taking: dict[str, Contestant], plan: Plan, row: Row, progress: Progress) -> None:
        cells = [
            (number, clients, name) for number in range(plan.rounds) for clients in plan.clients for name in taking
        ]
        failed: set[str] = set()
        for index, (number, clients, name) in enumerate(cells):
            if name in failed or len(row.cell(name, str(clients))) > number:
                continue
            failed.add(name)
            with noting_failures(name, row, progress):
                cell = taking[name].ask(clients, plan.seconds)
                row.add(name, str(clients), cell)
                failed.remove(name)
                progress.say(
                    f"round {number + 1} of {plan.rounds}, {clients} client{'s' * (clients > 1)}, {name}: "
                    f"{cell['rps']:,.0f} requests/s, p99 {cell['p99_ms']:.2f} ms",
                    (index + 1) / len(cells),
                )


@contextmanager
def noting_failures(who: str, row: Row, progress: Progress) -> Iterator[None]:
    """Note why somebody failed, and go on without it."""
    try:
        yield
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, subprocess.CalledProcessError) and error.stderr:
            reason += f": {str(error.stderr).strip()[-300:]}"
        row.note(who, failed=reason)
        progress.say(f"{who} failed: {reason}", 0.0)
