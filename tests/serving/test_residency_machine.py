"""Loads, unloads, requests, pins and deaths in any order, on the real catalog, against what must hold at every moment.

The hosts are stand-ins that finish, fail or die when the machine says so; all else is the server's own.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from mooring.contract.errors import MooringError
from mooring.handler.model_config import ModelConfig
from mooring.handler.resolve import HandlerChoice, HandlerKind, Isolation
from mooring.serving.catalog import ModelCatalog
from mooring.serving.errors import MIB, RemoteError
from mooring.serving.eviction import Eviction
from mooring.serving.host_link import HostLostError
from mooring.serving.invocation import Invocation
from mooring.serving.lifecycle import IllegalMoveError, State
from mooring.serving.pool import HostDeath, HostPool
from mooring.serving.residency import ModelRecord, ResidencyTable
from mooring.serving.settings import Limits

BUDGET = 100 * MIB
NAMES = "abcdef"
PLENTY = 1 << 40


class InlineExecutor(ThreadPoolExecutor):
    """Does at once what would be done in a thread, so that the order of things is the machine's alone."""

    def submit(self, work: Callable[..., Any], /, *given: Any, **options: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(work(*given, **options))
        except MooringError as error:
            done.set_exception(error)
        return done


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock moves when it is told, so that what depends on ages is the same whenever it is tried."""

    now = 0.0

    def time(self) -> float:
        return self.now


class StandInHost:
    """A host whose loads end when it is told, and whose requests are answered when they are."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        self.is_alive = True
        self.is_retiring = False
        self.models = 0
        self.mappings = 0
        self.pid = id(self)
        self.in_flight: dict[int, Invocation] = {}
        self.loads: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.held: set[int] = set()
        self.ids = 0

    async def load(self, number: int, name: str, folder: Path, on_warming: Callable[[], None]) -> dict[str, Any]:
        self.loads[number] = asyncio.get_running_loop().create_future()
        try:
            facts = await self.loads[number]
        finally:
            self.loads.pop(number, None)
        self.held.add(number)
        return facts

    async def unload(self, number: int) -> None:
        if not self.is_alive:
            raise HostLostError("the host ended")
        assert not [one for one in self.in_flight.values() if one.resident and one.resident.record.number == number]
        self.held.discard(number)

    def cancel_load(self, number: int) -> None:
        if number in self.loads and not self.loads[number].done():
            self.loads[number].set_exception(RemoteError(["LoadCancelledError"], "cancelled"))

    def infer(self, number: int, invocation: Invocation) -> None:
        assert self.is_alive
        assert number in self.held, "a request went where its model is not"
        self.ids += 1
        self.in_flight[self.ids] = invocation
        invocation.link, invocation.frame_id = cast("Any", self), self.ids

    def cancel(self, invocation: Invocation) -> None: ...

    def requests_of(self, resident: object) -> int:
        return sum(one.resident is resident for one in self.in_flight.values())


class StandInPool:
    """One shared host at a time, or one for each model that may not share."""

    def __init__(self) -> None:
        self.hosts: list[StandInHost] = []
        self.settle: Callable[[Invocation], None]
        self.on_death: Callable[[HostDeath], None]

    @property
    def links(self) -> list[StandInHost]:
        return [host for host in self.hosts if host.is_alive]

    async def place(self, backend: Any, *, is_shared: bool, requirements: Any, avoid: Any) -> StandInHost:
        shared = [host for host in self.links if host.plan.is_shared and host not in avoid]
        if is_shared and shared:
            host = shared[0]
        else:
            host = StandInHost(type("Plan", (), {"is_shared": is_shared}))
            self.hosts.append(host)
        host.models += 1
        return host

    def end(self, host: StandInHost, why: str) -> None:
        self.die(host)

    async def retire(self, host: StandInHost) -> None:
        assert not host.in_flight, "a process was ended with requests inside"
        host.is_alive = False

    async def was_killed(self, host: StandInHost) -> bool:
        return False

    def die(self, host: StandInHost, running: int | None = None) -> None:
        """End a host with all that is inside."""
        if not host.is_alive:
            return
        host.is_alive = False
        for load in host.loads.values():
            if not load.done():
                load.set_exception(HostLostError("the host ended"))
        inside = tuple(host.in_flight.values())
        host.in_flight.clear()
        suspects = frozenset(() if running is None else (running,))
        self.on_death(HostDeath(cast("Any", host), "was killed", False, inside, (), suspects))


class CountedInvocation(Invocation):
    """A request that counts how often it is answered."""

    __slots__ = ("ends",)

    def __init__(self, name: str) -> None:
        super().__init__(name, b"", b"")
        self.ends = 0

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        self.ends += 1

    def fail(self, error: MooringError) -> None:
        self.ends += 1

    def begin(self, status: int, lines: bytes) -> None: ...

    def chunk(self, part: bytes) -> None: ...

    def end(self) -> None: ...

    def break_off(self, error: MooringError) -> None: ...


@dataclass(frozen=True)
class SizedChoice(HandlerChoice):
    """A choice of handler whose files have a size without being there."""

    size: int = 0

    @property
    def artifact_bytes(self) -> int:
        return self.size


class CheckedTable(ResidencyTable):
    """A table that looks at whom it sends away."""

    def admit(self, name: str, **given: Any) -> tuple[ModelRecord, list[ModelRecord]]:
        record, victims = super().admit(name, **given)
        assert all(victim.state in {State.READY, State.DRAINING} for victim in victims)
        assert not any(victim.leases or victim.is_pinned for victim in victims)
        assert self.eviction is not Eviction.PLATFORM or all(victim.state is State.DRAINING for victim in victims)
        return record, victims


class CatalogMachine(RuleBasedStateMachine):
    """Any order of everything that can happen to models."""

    requests = Bundle("requests")

    @initialize(eviction=st.sampled_from(Eviction))
    def begin(self, eviction: Eviction) -> None:
        self.loop = SteppedLoop()
        self.loop.set_default_executor(InlineExecutor())
        self.pool = StandInPool()
        self.table = CheckedTable(BUDGET, eviction)
        self.sizes: dict[str, int] = {}
        self.asked: list[CountedInvocation] = []
        self.failed_calls: list[object] = []  # what no operation may end with
        self.loop.set_exception_handler(lambda _, context: self.failed_calls.append(context))
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.catalog = ModelCatalog(
            self.table, cast("HostPool", self.pool), Limits(drain_seconds=3600), self._choose, lambda _: PLENTY
        )

    def _choose(self, path: Path) -> HandlerChoice:
        isolation = Isolation.OWN if path.name in "ab" else Isolation.SHARED
        size = self.sizes[path.name]
        return SizedChoice(HandlerKind.ONNX, path, (), "made up", ModelConfig(), isolation=isolation, size=size)

    def _go_on(self) -> None:
        """Let everything happen that can without a host's doing, a millisecond later."""
        self.loop.now += 0.001

        async def turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def _start(self, work: Any) -> None:
        async def watched() -> None:
            try:
                await work
            except IllegalMoveError as error:
                self.failed_calls.append(error)
            except MooringError:
                pass  # what a client would be told

        async def start() -> None:
            self.catalog.spawn(watched())

        self.loop.run_until_complete(start())
        self._go_on()

    # --- what may happen --------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), megabytes=st.integers(1, 60), pinned=st.booleans())
    def load(self, name: str, megabytes: int, pinned: bool) -> None:
        self.sizes[name] = megabytes * MIB
        self._start(self.catalog.load(name, partial(Path, name), pinned=pinned))

    def _loading(self) -> list[tuple[StandInHost, int]]:
        return [(host, number) for host in self.pool.links for number, load in host.loads.items() if not load.done()]

    @precondition(lambda self: self._loading())
    @rule(
        data=st.data(),
        megabytes=st.integers(0, 90),
        weights=st.dictionaries(st.sampled_from("xyz"), st.just(3 * MIB)),
    )
    def finish_load(self, data: st.DataObject, megabytes: int, weights: dict[str, int]) -> None:
        host, number = data.draw(st.sampled_from(self._loading()))
        facts = {"bytes": megabytes * MIB, "mappings": 0, "metadata": {"weights": weights}}
        host.loads[number].set_result(facts)
        self._go_on()

    @precondition(lambda self: self._loading())
    @rule(data=st.data())
    def fail_load(self, data: st.DataObject) -> None:
        host, number = data.draw(st.sampled_from(self._loading()))
        host.loads[number].set_exception(RemoteError(["ModelLoadError", "UserCodeError"], "no model"))
        self._go_on()

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        self._start(self.catalog.unload(name))

    @rule(name=st.sampled_from(NAMES), pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        if name in self.table.records:
            self.catalog.pin(name, pinned=pinned)

    @rule(target=requests, name=st.sampled_from(NAMES))
    def invoke(self, name: str) -> Any:
        request = CountedInvocation(name)
        self.asked.append(request)
        self.catalog.dispatch.invoke(request)
        self._go_on()
        return multiple() if request.ends else request

    @rule(request=requests)
    def answer(self, request: CountedInvocation) -> None:
        if request.link is None:
            return
        host = cast("StandInHost", request.link)
        if host.in_flight.pop(request.frame_id, None) is not None:
            request.link = None
            self.pool.settle(request)
            request.answer(200, b"", b"")
        self._go_on()

    @precondition(lambda self: self.pool.links)
    @rule(data=st.data())
    def kill_host(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.pool.links))
        self.pool.die(host, next(iter(host.in_flight), None))
        self._go_on()

    # --- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def bytes_are_those_of_records_and_contents(self) -> None:
        table = self.table
        held = sum(record.bytes for record in table.records.values())
        assert table.used == held + sum(content.bytes for content in table.contents.values())
        maps = [name for record in table.records.values() for name in record.mapped]
        assert {name: content.models for name, content in table.contents.items()} == {
            name: maps.count(name) for name in maps
        }
        assert table.promised <= held

    @invariant()
    def requests_are_answered_once_and_hold_one_lease(self) -> None:
        assert all(request.ends <= 1 for request in self.asked)
        for record in self.table.records.values():
            open_ones = [
                one for one in self.asked if not one.ends and one.resident is not None and one.resident.record is record
            ]
            assert record.leases == len(open_ones)

    @invariant()
    def nothing_is_held_that_nobody_knows(self) -> None:
        """Ready models are in hosts that live; hosts hold no model twice, and none that has gone."""
        numbers = {record.number for record in self.table.records.values()}
        for host in self.pool.links:
            assert host.held <= numbers
            assert set(host.loads) <= numbers
        for resident in self.catalog.residents():
            if resident.record.state is State.READY:
                assert resident.links
                assert all(cast("Any", link).is_alive for link in resident.links)
        assert not self.failed_calls

    @invariant()
    def loads_are_single_flight(self) -> None:
        numbers = [number for host in self.pool.links for number in host.loads]
        assert len(numbers) == len(set(numbers))
        names = [record.name for record in self.table.records.values() if record.number in numbers]
        assert len(names) == len(set(names))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        # Once hosts answer, every request has an answer, and every model can go.
        for _ in range(50):
            for host, number in self._loading():
                host.loads[number].set_result({"bytes": 0, "mappings": 0})
            self._go_on()
            for request in self.asked:
                self.answer(request)
        assert all(request.ends == 1 for request in self.asked if not self._waits_for_another_try(request))
        self.catalog.close()
        self._go_on()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _waits_for_another_try(self, request: CountedInvocation) -> bool:
        """Whether its model's load waits for seconds to pass, which the machine does not let them."""
        return request.resident is not None and request.resident.record.state is State.QUEUED


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
