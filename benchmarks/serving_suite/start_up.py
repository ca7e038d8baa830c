"""How long it is from a server's start to its first healthy /ping, and to its first right answer."""

import time
from pathlib import Path

from . import servers
from .models import tiny
from .own import mooring
from .peer import Way
from .plan import Plan
from .progress import Progress
from .record import Row
from .running import serving
from .throughput import noting_failures

PING = "first healthy ping, s"
ANSWER = "first answer, s"
PEERS = (servers.MOORING, servers.RAW_LOOP, servers.FASTAPI, servers.MULTI_MODEL_SERVER)
LOOK_S = 0.005
# Of all of them, once.
ROUND_S = 11.0


class StartUp:
    """Processes, on a machine that has read their files before: what a container's start adds is the engine's."""

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        return plan.rounds * ROUND_S

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: `name` -> `PING` and `ANSWER` -> seconds a round."""
        model = tiny(folder)
        for number in range(plan.rounds):
            for peer in PEERS:
                if plan.takes(peer.name) and len(row.cell(peer.name, ANSWER)) <= number:
                    with noting_failures(peer.name, row, progress):
                        if peer is servers.MOORING:
                            with mooring("--repository", str(model.file.parents[1])) as ours:
                                row.add(peer.name, PING, ours.start_s)
                        started = time.perf_counter()
                        with serving(peer, model, Way(1), pause_s=LOOK_S):
                            row.add(peer.name, ANSWER, time.perf_counter() - started)
            progress.say(f"round {number + 1} of {plan.rounds}", (number + 1) / plan.rounds)
