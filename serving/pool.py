"""Where models run: hosts, forked from the zygote when needed, watched, and told apart by why they ended."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring.contract.resources import usable_cpus
from mooring.handler.resolve import Backend
from mooring.runner.parentage import end_group

from . import running, spawning
from .devices import Devices
from .host_link import HostLink, HostLostError, HostPlan, Settle
from .invocation import Invocation
from .lookout import LoopLookout
from .scratch import Scratch
from .settings import ADMIN_TOKEN, Mode, ServerSettings
from .zygote_link import ZygoteLink

logger = logging.getLogger(__name__)

# How long the exit status of a host may lag behind its closed socket.
EXIT_STATUS_WAIT_S = 5.0
# Waits before a zygote is started again, and how many failures in a row mean that it will never work.
FIRST_RESTART_WAIT_S = 0.1
LONGEST_RESTART_WAIT_S = 10.0
HOPELESS_STARTS = 3
# A process may have 65,530 mappings (vm.max_map_count); at half of them another shared host is opened.
MOST_MAPPINGS = 32_000


@dataclass(frozen=True)
class HostDeath:
    """A host that ended unasked, with the requests that were inside, and those that came too late to be sent.

    Of those inside, `running` are the ones that it worked on, by the ids of their frames; empty if that is not known.
    """

    link: HostLink
    how: str
    was_killed: bool  # by the kernel, as `HostPool.was_killed` says
    inside: tuple[Invocation, ...]
    unsent: tuple[Invocation, ...]
    running: frozenset[int]


class HostPool:
    """Starts and ends hosts. `on_death` is awaited for each that ends unasked; `settle` runs before each answer."""

    def __init__(
        self,
        variables: Mapping[str, str],
        shared_hosts: int,
        threads: int,
        devices: Devices,
        *,
        buffer_streams: bool = False,
    ) -> None:
        self._buffer_streams = buffer_streams
        self._variables = variables
        self._shared_hosts = shared_hosts
        self._threads = threads
        self.devices = devices
        self._links: dict[int, HostLink] = {}
        self._addresses: dict[int, Path] = {}
        self._others: dict[int, asyncio.Future[int]] = {}  # children that hold no models, and how they ended
        self._hosts_started = 0
        self.deaths = 0  # of hosts that nobody ended
        self._placing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.settle: Settle
        self.on_death: Callable[[HostDeath], None]
        self.on_tally: Callable[[bytes], None]
        self._life, self._life_end = os.pipe()
        self.scratch = Scratch()
        self._zygotes = {Backend.ONNX: self._new_zygote(Backend.ONNX)}
        self._was_ready = False
        self._failed_starts: dict[Backend, int] = {}

    def start(self) -> None:
        """Start the first zygote; its imports go on while the caller does other things. May run before the loop."""
        self._zygotes[Backend.ONNX].start()

    def attach(self) -> None:
        """Begin to listen to the zygote, and to reap. Call it on the running event loop."""
        loop = asyncio.get_running_loop()
        self._lookout = LoopLookout(loop, may_look_out=usable_cpus() > 1)
        self._zygotes[Backend.ONNX].listen()
        # Not the loop's own handler: uvloop keeps SIGCHLD for subprocesses, which this process never uses.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))

    def _new_zygote(self, backend: Backend) -> ZygoteLink:
        return ZygoteLink(backend, self._variables, self._life, self._on_exit, lambda: self._on_zygote_end(backend))

    def prepare(self, backend: Backend) -> ZygoteLink:
        """Return the zygote of a backend, started if this is the first time that one is needed."""
        if backend not in self._zygotes:
            self._zygotes[backend] = self._new_zygote(backend)
            self._start_zygote(backend)
        return self._zygotes[backend]  # another one already, if it could not be started

    @property
    def is_ready(self) -> bool:
        """Whether hosts can be started. A zygote that died once is replaced in the time a host would take anyway."""
        self._was_ready = self._was_ready or self._zygotes[Backend.ONNX].is_ready
        return self._was_ready and self._failed_starts.get(Backend.ONNX, 0) < HOPELESS_STARTS

    def _on_zygote_end(self, backend: Backend) -> None:
        """Start another zygote, later and later if they keep ending before they are ready."""
        if self._is_closing:
            return
        zygote = self._zygotes[backend]
        failed = 0 if zygote.is_ready else self._failed_starts.get(backend, 0) + 1
        self._failed_starts[backend] = failed
        delay = min(LONGEST_RESTART_WAIT_S, FIRST_RESTART_WAIT_S * 2**failed)
        logger.warning("The %s zygote (pid %d) has ended; another starts in %.1f s.", backend.value, zygote.pid, delay)
        self._zygotes[backend] = self._new_zygote(backend)
        asyncio.get_running_loop().call_later(delay, self._start_zygote, backend)

    def _start_zygote(self, backend: Backend) -> None:
        if self._is_closing:
            return
        zygote = self._zygotes[backend]
        try:
            zygote.start()
        except OSError as error:  # no process, memory or descriptor is left for the moment
            logger.warning("The %s zygote cannot be started: %s", backend.value, error)
            zygote.give_up()
        else:
            zygote.listen()

    @property
    def links(self) -> list[HostLink]:
        """The hosts there are."""
        return list(self._links.values())

    @property
    def pids(self) -> list[int]:
        """The processes of the pool: zygotes first, then hosts, then others."""
        return [*(zygote.pid for zygote in self._zygotes.values()), *self._links, *self._others]

    def execute(self, module: str, handles: Sequence[int]) -> "tuple[int, asyncio.Future[int]]":
        """Execute a module that holds no models, with descriptors and one more that tells it when to end.

        Returns its pid, and what will be its wait status.
        """
        pid = spawning.start(module, [*handles, self._life], (), self._variables)
        self._others[pid] = asyncio.get_running_loop().create_future()
        return pid, self._others[pid]

    async def place(
        self, backend: Backend, *, is_shared: bool, requirements: Path | None = None, avoid: Sequence[HostLink] = ()
    ) -> HostLink:
        """Return the host for one more model: a new one of its own, or a shared one, not a busy one, with few models.

        `avoid` are hosts where it is already. Raises `ZygoteDiedError`, `HostLostError`.
        """
        if not is_shared:
            device = await asyncio.to_thread(self.devices.emptiest) if self.devices.ids else None
            link = await self._start_host(HostPlan(backend, False, device, requirements))
        else:
            async with self._placing:
                shared = self._shared_links(backend, avoid)
                if not shared or self._is_one_missing(shared, avoid):
                    link = await self._start_host(HostPlan(backend, True, self.devices.next()))
                else:
                    link = min(shared, key=lambda link: (round(link.busy), link.models))
        link.models += 1
        return link

    def idlest(self, backend: Backend, avoid: Sequence[HostLink]) -> float:
        """Return how busy the shared host is that is the least so, 0 if another can be started."""
        shared = self._shared_links(backend, avoid)
        return 0.0 if self._is_one_missing(shared, avoid) else min((link.busy for link in shared), default=1.0)

    def _is_one_missing(self, shared: Sequence[HostLink], avoid: Sequence[HostLink]) -> bool:
        """Whether there are to be more shared hosts than those that can take a model and those where it is already."""
        return len(shared) + len(avoid) < self._shared_hosts

    def _shared_links(self, backend: Backend, avoid: Sequence[HostLink]) -> list[HostLink]:
        """Return the shared hosts that can take another model, but those to avoid."""
        return [
            link
            for link in self._links.values()
            if link.plan.is_shared
            and link.plan.backend is backend
            and link.is_alive
            and not link.is_retiring
            and link.mappings < MOST_MAPPINGS
            and link not in avoid
        ]

    async def _start_host(self, plan: HostPlan) -> HostLink:
        self._hosts_started += 1
        address = self.scratch.folder / f"h{self._hosts_started}"

        def born(pid: int) -> HostLink:
            self._addresses[pid] = address
            link = HostLink(pid, plan, self.settle, self._on_lost, buffer_streams=self._buffer_streams)
            link.on_tally = self.on_tally
            if plan.is_shared:
                link.look_out = self._lookout.expect
            self._links[pid] = link
            return link

        link = await self.prepare(plan.backend).fork(address, self._threads, plan, born)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, str(address))
        except OSError as error:  # it has been killed already, or there is no descriptor for it
            link.connection_lost(error)
            raise HostLostError(f"the host could not be reached: {error}") from error
        finally:
            address.unlink(missing_ok=True)
        return link

    async def retire(self, link: HostLink) -> None:
        """End a host that holds nothing any more, and return when its memory is back."""
        self.end(link, "was retired")
        await asyncio.wait([link.exit_status], timeout=EXIT_STATUS_WAIT_S)

    def running_in(self, link: HostLink) -> frozenset[int]:
        """Return the ids of the frames that a host runs at this moment. Empty where that is not known."""
        return running.look(self._addresses[link.pid])

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
        suspects = running.take(self._addresses.pop(link.pid))
        if self._is_closing:
            return
        inside = tuple(link.in_flight.values())
        unsent = tuple(link.unsent)
        link.in_flight.clear()
        link.unsent.clear()
        how = link.ending or in_words(link.exit_status)
        if not link.ending:
            self.deaths += 1
            logger.error("Host %d %s with %d requests inside.", link.pid, how, len(inside))
        self.on_death(HostDeath(link, how, was_killed, inside, unsent, suspects))

    def _on_exit(self, pid: int, status: int) -> None:
        link = self._links.get(pid)
        exit_status = self._others.pop(pid, None) if link is None else link.exit_status
        if exit_status is not None and not exit_status.done():
            exit_status.set_result(status)

    def _reap(self) -> None:
        """Collect children of this process: the zygote, and hosts that a dead zygote left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._links:
                end_group(pid)
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
        for zygote in self._zygotes.values():
            zygote.close()
        os.close(self._life_end)  # whoever has not ended by now reads end-of-file here
        os.close(self._life)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.scratch.close()


def make_pool(variables: Mapping[str, str], settings: ServerSettings) -> HostPool:
    """Return a pool sized for this machine and for what is served."""
    # A model's code may read its variables, and is not to load other models by them.
    variables = {name: value for name, value in variables.items() if name != ADMIN_TOKEN}
    devices = Devices.visible(variables)
    limits = settings.limits
    is_alone = settings.mode is Mode.SINGLE
    cpus, gpus = usable_cpus(), len(devices.ids)
    shared_hosts, threads = divided(cpus, gpus, limits.workers, limits.shared_hosts, is_alone=is_alone)
    return HostPool(variables, shared_hosts, threads, devices, buffer_streams=limits.buffer_streams)


def divided(cpus: int, gpus: int, workers: int, wanted: int = 0, *, is_alone: bool) -> tuple[int, int]:
    """Return how many shared hosts there are, and how many threads each host has.

    Many models share a host per two cores. One that is alone has all cores in one host, or divides them among its
    workers. Each process pays for a CUDA context of its own, so there is one shared host per GPU. `wanted` hosts are
    what somebody asked for, 0 if nobody did.

    >>> divided(16, 0, 1, is_alone=False), divided(16, 0, 1, is_alone=True), divided(16, 0, 4, is_alone=True)
    ((8, 2), (1, 16), (1, 4))
    """
    shared_hosts = wanted or gpus or (1 if is_alone else max(1, cpus // 2))
    return shared_hosts, max(1, cpus // max(shared_hosts, workers if is_alone else 1))


def in_words(exit_status: "asyncio.Future[int]") -> str:
    """Say how a process ended."""
    if not exit_status.done():
        return "hung up"
    status = exit_status.result()
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"
