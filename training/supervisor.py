"""The supervisor: the first process of a training container. Standard library only, and no subprocess or
multiprocessing: it reaps every child itself, and a status taken from those modules would read as 0.

It owns the ranks' pipes, relays their lines, forwards a stop to rank leaders only, waits out the grace budget, kills
groups, and knows how each rank ended.
"""

import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mooring.runner.parentage import adopt_orphans, end_children

from .entry_point import Command, EntryPoint, Function, Script, as_command
from .failure import RankFailure, error_file, exit_code, read_error, root_cause
from .plan import LaunchPlan, StartMethod
from .relay import Relay
from .signal_pipe import SignalPipe
from .stacks import ask_places

logger = logging.getLogger(__name__)

# After one rank has failed the others can only wait for it; this long they may still say something.
FAILURE_GRACE_S = 10.0
# An agent whose ranks have all been killed has only to report and exit.
AGENT_GRACE_S = 5.0
# Killed processes are gone in milliseconds, unless the kernel is busy writing for them.
LEFTOVER_S = 2.0
STOPPING = b"stopping\n"


@dataclass
class Rank:
    """One rank as the supervisor sees it."""

    rank: int
    pid: int | None = None
    status: int | None = None
    ended_at: float = 0.0
    was_told: bool = False  # a signal of ours may be why it ended
    was_killed: bool = False  # it did not end when it was told to

    def begin(self, pid: int | None) -> None:
        """Forget the last attempt; the next one's process is there, or still to come."""
        self.pid, self.status, self.was_told, self.was_killed = pid, None, False, False


@dataclass(frozen=True)
class Outcome:
    """How a run ended. The exit code is 0 if and only if every rank exited 0."""

    exit_code: int
    cause: RankFailure | None = None  # what the other failures follow from
    lost_agent: bool = False  # the agent ended before its ranks did
    problem: str | None = None  # why they did not start, or were stopped, if that was not their own doing
    stopped_by: int | None = None  # the signal that asked for the end
    places: Mapping[int, str] = field(default_factory=dict)  # where ranks were when they were told, or made, to end


class Supervisor:
    """One run of a plan. `folder` is an empty folder of its own."""

    def __init__(self, plan: LaunchPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._attempt = 0
        self._ranks = [Rank(planned.rank) for planned in plan.ranks]
        self._relays: list[Relay] = []
        self._agent = 0
        self._agent_status: int | None = None
        self._lost_agent = False
        self._problem: str | None = None
        self._deadline: float | None = None
        self._stopped_by: int | None = None
        self._places: dict[int, str] = {}
        self._news = b""  # the beginning of a line from the agent

    def run(self) -> Outcome:
        """Run the plan to its end."""
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            stack.enter_context(SignalPipe(self._selector, self._on_signal))
            adopt_orphans()
            self._start(stack)
            while not self._is_over():
                for key, _ in self._selector.select(self._time_left()):
                    key.data()
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self._kill()
            self._kill_groups()
            end_children(LEFTOVER_S)
            for relay in self._relays:
                relay.finish()
        return self._outcome()

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start(self, stack: ExitStack) -> None:
        """Make the pipes, and execute the agent."""
        write_ends = [(self._pipe(1), self._pipe(2)) for _ in self._ranks]
        ours, agents = socket.socketpair()
        self._control = stack.enter_context(ours)
        self._selector.register(ours, selectors.EVENT_READ, self._on_news)
        os.set_inheritable(agents.fileno(), True)
        command = [sys.executable, "-P", "-m", "mooring.training.agent", str(agents.fileno())]
        self._agent = os.posix_spawn(sys.executable, command, self._plan.variables)
        agents.close()
        for ends in write_ends:
            os.close(ends[0])
            os.close(ends[1])
        ours.sendall(json.dumps(self._order(write_ends)).encode() + b"\n")

    def _pipe(self, sink: int) -> int:
        """Make a pipe that is relayed to `sink`, and return its write end, to be inherited."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_inheritable(write_end, True)
        relay = Relay(read_end, sink)
        self._relays.append(relay)
        self._selector.register(read_end, selectors.EVENT_READ, lambda: self._on_output(relay))
        return write_end

    def _order(self, write_ends: list[tuple[int, int]]) -> dict[str, Any]:
        """Return what the agent must know. Variables may be secrets, so it goes through a socket, not as arguments."""
        plan = self._plan
        return {
            "entry_point": _as_json(
                plan.entry_point if plan.start_method is StartMethod.FORK else as_command(plan.entry_point)
            ),
            "arguments": plan.arguments,
            "directory": str(plan.directory) if plan.directory else None,
            "ranks": [
                {
                    "rank": planned.rank,
                    "variables": dict(planned.variables),
                    "stdout": stdout,
                    "stderr": stderr,
                }
                for planned, (stdout, stderr) in zip(plan.ranks, write_ends, strict=True)
            ],
            "folder": str(self._folder),
            "is_distributed": plan.meeting_port is not None,
            "hosts": plan.hosts,
            "host": plan.host,
            "port": plan.meeting_port or 0,
            "join_seconds": plan.join_seconds,
            "max_restarts": plan.max_restarts,
        }

    # --- what happens -----------------------------------------------------------------------------------------------

    def _on_output(self, relay: Relay) -> None:
        if not relay.pump():
            self._selector.unregister(relay.source)

    def _on_news(self) -> None:
        """Hear from the agent which ranks there are and how they end."""
        with suppress(ConnectionError):
            if content := self._control.recv(1 << 16):
                *lines, self._news = (self._news + content).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
                return
        self._selector.unregister(self._control)

    def _take(self, news: Mapping[str, Any]) -> None:
        if "pids" in news:
            for rank in self._ranks:
                rank.begin(news["pids"][str(rank.rank)])
            self._attempt = news["attempt"]
            if self._stopped_by is not None:
                self._tell_ranks(self._stopped_by)  # it came before they did
        elif "restart" in news:
            logger.error("%s; starting the ranks again, restart %d", news["why"], news["restart"])
            self._places = {}
            for rank in self._ranks:
                rank.begin(None)
        elif "problem" in news:
            self._problem = news["problem"]
        elif "elsewhere" in news:
            self._problem = f"{news['elsewhere'].capitalize()} failed, and this host's ranks were stopped for it."
            logger.error("%s", self._problem)
            self._stop_others()
        else:
            self._on_rank_end(next(rank for rank in self._ranks if rank.rank == news["rank"]), news["status"])

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
            return
        if self._stopped_by is not None:
            logger.warning("%s again: ending now", signal.Signals(number).name)
            self._kill()
            return
        self._stopped_by = number
        self._deadline = time.monotonic() + self._plan.grace_seconds
        logger.info(
            "%s: asking %d rank(s) to stop within %g s",
            signal.Signals(number).name,
            len(self._ranks),
            self._plan.grace_seconds,
        )
        with suppress(OSError):  # it has ended already
            self._control.sendall(STOPPING)
        if any(rank.pid is not None and rank.status is None for rank in self._ranks):
            self._tell_ranks(number)
        elif self._agent_status is None:
            os.kill(self._agent, signal.SIGTERM)  # nothing has started that could save anything

    def _reap(self) -> None:
        """Take the statuses of all children: the agent, its ranks if it is gone, orphans of either."""
        by_pid = {rank.pid: rank for rank in self._ranks}
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._agent:
                    self._on_agent_end(status)
                elif pid in by_pid:
                    self._lost_agent = True  # or it would have been the agent's to reap
                    self._on_rank_end(by_pid[pid], status)

    def _on_agent_end(self, status: int) -> None:
        # What it said before it died is still in the socket.
        while self._control in {key.fileobj for key in self._selector.get_map().values()}:
            self._on_news()
        self._agent_status = status
        self._lost_agent = self._lost_agent or any(rank.status is None for rank in self._ranks)
        if self._lost_agent:
            logger.error("the agent that started the ranks ended with exit code %d; ending them", exit_code(status))
            self._kill_groups()

    def _on_rank_end(self, rank: Rank, status: int) -> None:
        rank.status = status
        rank.ended_at = time.time()
        if status != 0 and any(other.status is None for other in self._ranks):
            logger.error("rank %d ended with exit code %d; stopping the others", rank.rank, exit_code(status))
            self._stop_others()

    # --- ending -----------------------------------------------------------------------------------------------------

    def _stop_others(self) -> None:
        """Ask the ranks that are left to end: they can only wait for the one that has failed."""
        self._look()
        self._tell_ranks(signal.SIGTERM)
        limit = time.monotonic() + FAILURE_GRACE_S
        self._deadline = limit if self._deadline is None else min(limit, self._deadline)

    def _tell_ranks(self, number: int) -> None:
        """Signal rank leaders only: a DataLoader worker that gets SIGTERM takes its rank with it."""
        for rank in self._ranks:
            if rank.pid is not None and rank.status is None and not rank.was_told:
                rank.was_told = True
                with suppress(ProcessLookupError):
                    os.kill(rank.pid, number)

    def _kill(self) -> None:
        """Kill whatever still runs."""
        self._look()
        self._deadline = time.monotonic() + AGENT_GRACE_S
        if self._agent_status is None and all(rank.pid is None or rank.status is not None for rank in self._ranks):
            os.kill(self._agent, signal.SIGKILL)
        self._kill_groups()

    def _kill_groups(self) -> None:
        """Kill what is left of every rank's group: the rank, its workers, whatever it started."""
        for rank in self._ranks:
            if rank.pid is not None:
                if rank.status is None:
                    rank.was_told = rank.was_killed = True
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(rank.pid, signal.SIGKILL)

    def _look(self) -> None:
        """Learn, once, where the ranks are that still run."""
        if not self._places:
            pids = {rank.rank: rank.pid for rank in self._ranks if rank.pid is not None and rank.status is None}
            self._places = ask_places(self._folder, pids)
            for rank, place in self._places.items():
                logger.info("rank %d was at %s", rank, place)

    def _time_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _is_over(self) -> bool:
        return self._agent_status is not None and all(
            rank.pid is None or rank.status is not None for rank in self._ranks
        )

    def _outcome(self) -> Outcome:
        if self._lost_agent:
            code = exit_code(self._agent_status or 0) or 1
            return Outcome(code, None, True, self._problem, self._stopped_by, self._places)
        failed = [index for index, rank in enumerate(self._ranks) if rank.status]
        if not failed:
            return Outcome(0, stopped_by=self._stopped_by)
        unprompted = [index for index in failed if not self._ranks[index].was_told]
        cause = root_cause([self._failure(index) for index in unprompted or failed])
        return Outcome(cause.exit_code, cause, False, self._problem, self._stopped_by, self._places)

    def _failure(self, index: int) -> RankFailure:
        rank, stderr = self._ranks[index], self._relays[2 * index + 1]
        said = read_error(error_file(self._folder, rank.rank, self._attempt))
        at, error = said or (rank.ended_at, None)
        tail = stderr.tail.decode("utf-8", "replace")
        return RankFailure(rank.rank, rank.status or 0, at, error, tail, was_killed=rank.was_killed)


def _as_json(entry_point: EntryPoint) -> tuple[str, Any]:
    if isinstance(entry_point, Script):
        return "script", str(entry_point.path)
    if isinstance(entry_point, Command):
        return "command", entry_point.argv
    if isinstance(entry_point, Function):
        return "function", (entry_point.module, entry_point.name)
    return "module", entry_point.name
