"""What several processes that speak HTTP give a server of a model that costs nothing, and what a request costs whom."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from .contestants import Cell, wrk
from .models import JSON, as_rows, tiny
from .own import Listening, mooring
from .peer import CORES
from .plan import Plan
from .progress import Progress
from .record import Row

CLIENTS = 64
WARM_S = 1.0
START_S = 4.0
PATIENCE_S = 30.0
# The least that a machine has on which it is judged, and what the rate is compared with: two of its cores, no fronts.
LEAST_CORES = 8
FEW_CORES = 2
ON_FEW = f"on {FEW_CORES} of the cores"
FRONTS = tuple(dict.fromkeys((0, 1, 2, *(count for count in (4, 8, 16) if count <= CORES // 2))))
ROLES = ("front door", "fronts", "hosts")


def name_of(count: int) -> str:
    """Return what a server with so many fronts is called.

    >>> name_of(0), name_of(1), name_of(4)
    ('no fronts', '1 front', '4 fronts')
    """
    return f"{count or 'no'} front{'s' * (count != 1)}"


class Fronts:
    """The same server with more and more fronts, and on two cores where the machine has many."""

    def __init__(self) -> None:
        self._names = [name_of(count) for count in FRONTS] + ([ON_FEW] if CORES >= LEAST_CORES else [])

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        return len(self._names) * (START_S + WARM_S + plan.rounds * (plan.seconds + 0.3))

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: `name` -> `CLIENTS` -> a cell a round, with µs of CPU time a request by role."""
        model = tiny(folder)
        body = folder / "body"
        body.write_bytes(as_rows(model))
        with ExitStack() as stack:
            servers = {}
            for name, count in zip(self._names, (*FRONTS, 0), strict=False):
                arguments = ("--model", str(model.file.parent), "--fronts", str(count))
                servers[name] = stack.enter_context(mooring(*arguments, before=_on(name)))
                _wait_for_fronts(servers[name], count)
                _ask(servers[name], name, body, WARM_S)
            for number in range(plan.rounds):
                for name, server in servers.items():
                    if len(row.cell(name, str(CLIENTS))) <= number:
                        row.add(name, str(CLIENTS), _ask(server, name, body, plan.seconds))
                progress.say(f"round {number + 1} of {plan.rounds}", (number + 1) / plan.rounds)


def _on(name: str) -> tuple[str, ...]:
    """Return what begins a command that is to run on the cores of a contestant."""
    if name != ON_FEW:
        return ()
    return ("taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:FEW_CORES])))


def _wait_for_fronts(server: Listening, count: int) -> None:
    limit = time.monotonic() + PATIENCE_S
    with server.client() as client:
        while f"mooring_fronts {count:.1f}\n" not in client.send("GET", "/metrics").decode():
            if time.monotonic() > limit:
                raise RuntimeError(f"{count} fronts did not start in {PATIENCE_S:g} s")
            time.sleep(0.05)


def _ask(server: Listening, name: str, body: Path, seconds: float) -> Cell:
    url = f"http://127.0.0.1:{server.port}/invocations"
    threads = 1 if name == ON_FEW else max(1, CORES // 4)
    with server.group.moving():
        before = _cpu_seconds(server)
        cell = wrk(url, body, JSON, CLIENTS, seconds, threads=threads, before=_on(name))
        after = _cpu_seconds(server)
    answered = cell["rps"] * seconds
    return cell | {f"{role} us": (after[role] - before[role]) * 1e6 / answered for role in ROLES}


def _cpu_seconds(server: Listening) -> dict[str, float]:
    """Return how long the server's processes have computed, by role."""
    spent = dict.fromkeys(ROLES, 0.0)
    first, *others = server.group.members()
    for process in (first, *others):
        is_front = process is not first and "mooring.serving.front" in process.cmdline()
        role = ROLES[0] if process is first else ROLES[1] if is_front else ROLES[2]
        times = process.cpu_times()
        spent[role] += times.user + times.system
    return spent
