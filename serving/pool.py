"""Where models run: hosts, forked from the zygote when needed, watched, and told apart by why they ended."""

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mooring.contract.resources import usable_cpus
from mooring.handler.resolve import Isolation

from .host_link import HostLink, Settle
from .invocation import Invocation
from .zygote_link import ZygoteLink

logger = logging.getLogger(__name__)

# How long the exit status of a host may lag behind its closed socket.
EXIT_STATUS_WAIT_S = 5.0
# Waits before a zygote is started again, and how many failures in a row mean that it will never work.
FIRST_RESTART_WAIT_S = 0.1
LONGEST_RESTART_WAIT_S = 10.0
HOPELESS_STARTS = 3


@dataclass(frozen=True)
class HostDeath:
    """A host that ended unasked, with the requests that were inside, and those that came too late to be sent."""

    link: HostLink
    how: str
    was_killed: bool  # by the kernel, as `HostPool.was_killed` says
    inside: tuple[Invocation, ...]
    unsent: tuple[Invocation, ...]


class HostPool:
    """Starts and ends hosts. `on_death` is awaited for each that ends unasked; `settle` runs before each answer."""

    def __init__(self, variables: Mapping[str, str], shared_hosts: int, threads: int) -> None:
        self._variables = variables
        self._shared_hosts = shared_hosts
        self._threads = threads
        self._links: dict[int, HostLink] = {}
        self._hosts_started = 0
        self._placing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.settle: Settle
        self.on_death: Callable[[HostDeath], None]
        self._life, self._life_end = os.pipe()
        self._folder = Path(tempfile.mkdtemp(prefix="mooring-"))
        self._zygote = self._new_zygote()
        self._was_ready = False
        self._failed_starts = 0

    def start(self) -> None:
        """Start the zygote; its imports go on while the caller does other things. May run before the event loop."""
        self._zygote.start()

    def attach(self) -> None:
        """Begin to listen to the zygote, and to reap. Call it on the running event loop."""
        loop = asyncio.get_running_loop()
        self._zygote.listen()
        # Not the loop's own handler: uvloop keeps SIGCHLD for subprocesses, which this process never uses.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))

    def _new_zygote(self) -> ZygoteLink:
        return ZygoteLink(self._variables, self._life, self._on_exit, self._on_zygote_end)

    @property
    def is_ready(self) -> bool:
        """Whether hosts can be started. A zygote that died once is replaced in the time a host would take anyway."""
        self._was_ready = self._was_ready or self._zygote.is_ready
        return self._was_ready and self._failed_starts < HOPELESS_STARTS

    def _on_zygote_end(self) -> None:
        """Start another zygote, later and later if they keep ending before they are ready."""
        if self._is_closing:
            return
        self._failed_starts = 0 if self._zygote.is_ready else self._failed_starts + 1
        delay = min(LONGEST_RESTART_WAIT_S, FIRST_RESTART_WAIT_S * 2**self._failed_starts)
        logger.warning("The zygote (pid %d) has ended; another is started in %.1f s.", self._zygote.pid, delay)
        self._zygote = self._new_zygote()
        asyncio.get_running_loop().call_later(delay, self._start_zygote)

    def _start_zygote(self) -> None:
        if not self._is_closing:
            self._zygote.start()
            self._zygote.listen()

    @property
    def pids(self) -> list[int]:
        """The processes of the pool: zygote first, then hosts."""
        return [self._zygote.pid, *self._links]

    async def place(self, isolation: Isolation) -> HostLink:
        """Return the host for one more model: a new one of its own, or the shared one with the fewest models."""
        if isolation is Isolation.OWN:
            link = await self._start_host(is_shared=False)
        else:
            async with self._placing:
                shared = [link for link in self._links.values() if link.is_shared and link.is_alive]
                if len(shared) < self._shared_hosts:
                    link = await self._start_host(is_shared=True)
                else:
                    link = min(shared, key=lambda link: link.models)
        link.models += 1
        return link

    async def _start_host(self, *, is_shared: bool) -> HostLink:
        self._hosts_started += 1
        address = self._folder / f"host-{self._hosts_started}"

        def born(pid: int) -> HostLink:
            self._links[pid] = HostLink(pid, is_shared, self.settle, self._on_lost)
            return self._links[pid]

        link = await self._zygote.fork(address, self._threads, born)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, str(address))
        address.unlink()
        return link

    async def retire(self, link: HostLink) -> None:
        """End a host that holds nothing any more, and return when its memory is back."""
        self.end(link, "was retired")
        await asyncio.wait([link.exit_status], timeout=EXIT_STATUS_WAIT_S)

    def stop_overdue(self, now: float) -> list[Invocation]:
        """Kill the hosts whose oldest request is past its deadline; return those requests, taken out."""
        overdue: list[Invocation] = []
        for link in list(self._links.values()):
            late = link.overdue(now)
            if late:
                logger.warning("Host %d is stopped: a request in it did not return in time.", link.pid)
                self.end(link, "was stopped because a request in it did not return in time")
                overdue += late
        return overdue

    def end(self, link: HostLink, why: str) -> None:
        """Kill a host and remember why, for those who had something in it."""
        link.ending = why
        link.kill()

    async def was_killed(self, link: HostLink) -> bool:
        """Whether a host that ended was killed by somebody else: the kernel, nearly always for want of memory."""
        await asyncio.wait([link.exit_status], timeout=EXIT_STATUS_WAIT_S)
        if link.ending or not link.exit_status.done():
            return False
        status = link.exit_status.result()
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def _on_lost(self, link: HostLink) -> None:
        task = asyncio.get_running_loop().create_task(self._bury(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, link: HostLink) -> None:
        """Learn why a host ended, and tell whoever had models or requests in it."""
        was_killed = await self.was_killed(link)
        if not link.exit_status.done():
            link.kill()  # it hung up but lives: nothing of it can be trusted
        self._links.pop(link.pid, None)
        if self._is_closing:
            return
        inside = tuple(link.in_flight.values())
        unsent = tuple(link.unsent)
        link.in_flight.clear()
        link.unsent.clear()
        how = link.ending or _in_words(link.exit_status)
        if not link.ending:
            logger.error("Host %d %s with %d requests inside.", link.pid, how, len(inside))
        self.on_death(HostDeath(link, how, was_killed, inside, unsent))

    def _on_exit(self, pid: int, status: int) -> None:
        link = self._links.get(pid)
        if link is not None and not link.exit_status.done():
            link.exit_status.set_result(status)

    def _reap(self) -> None:
        """Collect children of this process: the zygote, and hosts that a dead zygote left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_exit(pid, status)

    async def close(self) -> None:
        """End every process of the pool and remove what it left on disk."""
        self._is_closing = True
        links = list(self._links.values())
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.exit_status for link in links], timeout=1.0)
        for link in links:
            link.kill()
        self._zygote.close()
        os.close(self._life_end)  # whoever has not ended by now reads end-of-file here
        os.close(self._life)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        shutil.rmtree(self._folder, ignore_errors=True)


def make_pool(variables: Mapping[str, str]) -> HostPool:
    """Return a pool sized for this machine: a shared host per two cores, which split the cores as threads."""
    cpus = usable_cpus()
    shared_hosts = max(1, cpus // 2)
    return HostPool(variables, shared_hosts, threads=max(1, cpus // shared_hosts))


def _in_words(exit_status: "asyncio.Future[int]") -> str:
    if not exit_status.done():
        return "hung up"
    status = exit_status.result()
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"
