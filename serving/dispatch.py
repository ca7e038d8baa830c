"""Requests on their way to models and back: leases, queues, deadlines, and the retry of what died with its host."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from mooring.contract.errors import MooringError
from mooring.handler.errors import CancelledRequestError

from .errors import (
    HostDiedError,
    HostOutOfMemoryError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    ResponseTimeoutError,
)
from .eviction import History
from .host_link import HostLink
from .invocation import Invocation
from .lifecycle import State
from .pool import HostDeath, HostPool
from .resident import Resident, settle

# Attempts that a request gets when hosts die with it inside.
MOST_ATTEMPTS = 2
HUNG = "was stopped because a request in it did not return in time"


class Dispatch:
    """Sends requests to the hosts of residents. Plain calls on the event loop's thread: this is the hot path."""

    def __init__(
        self, residents: Mapping[str, Resident], pool: HostPool, history: History, overload_status: int
    ) -> None:
        self._overload_status = overload_status
        self._residents = residents
        self._pool = pool
        self._history = history
        self._time = asyncio.get_running_loop().time
        # What becomes of a request whose model is not here, and why that is so, if anybody knows.
        self.on_absent: Callable[[Invocation, str], None] = _not_found

    def invoke(self, invocation: Invocation) -> None:
        """Send a request to its model; the answer, or the error, goes to the invocation."""
        resident = self._residents.get(invocation.name)
        if resident is None:
            self.on_absent(invocation, "")
            return
        record = resident.record
        if record.leases >= resident.queue_length:
            invocation.fail(OverloadedError(record.name, record.leases, self._overload_status))
            return
        state = record.state
        if state is State.READY:
            self._lease(invocation, resident)
            link = invocation.preferred
            if link is None or link not in resident.links:
                link = resident.least_busy()
            link.infer(record.number, invocation)
        elif state is State.FAILED and record.was_ready:
            invocation.fail(ModelNotReadyError(record.name, state.value, record.reason))
        elif state is State.FAILED or state is State.DRAINING or resident.is_unwanted:
            self.on_absent(invocation, record.reason)
        else:
            self._lease(invocation, resident)
            resident.waiting.append(invocation)

    def _lease(self, invocation: Invocation, resident: Resident) -> None:
        now = self._time()
        record = resident.record
        if now != record.last_used:  # the loop's clock counts milliseconds
            self._history.used(record.name, now)
            record.last_used = now
        record.leases += 1
        record.hits += 1
        invocation.resident = resident
        invocation.started = monotonic()  # finer than the loop's clock, which counts milliseconds
        invocation.deadline = now + resident.response_seconds

    def send_waiting(self, resident: Resident) -> None:
        """Send the requests that waited for a load."""
        waiting, resident.waiting = resident.waiting, []
        for invocation in waiting:
            invocation.deadline = self._time() + resident.response_seconds
            resident.least_busy().infer(resident.record.number, invocation)

    def fail_waiting(self, resident: Resident, error: MooringError) -> None:
        """Tell the requests that waited why their model will not answer."""
        waiting, resident.waiting = resident.waiting, []
        for invocation in waiting:
            self._fail(invocation, error)

    def _fail(self, invocation: Invocation, error: MooringError) -> None:
        settle(invocation)
        if invocation.has_begun:
            invocation.break_off(error)
        else:
            invocation.fail(error)

    # --- deadlines --------------------------------------------------------------------------------------------------

    def check_deadlines(self) -> None:
        """Answer requests whose time is up; stop hosts that have said nothing for long enough, for they hang."""
        now = self._time()
        for link in self._pool.links:
            inside = tuple(link.in_flight.values())
            if all(invocation.waits_for_client for invocation in inside):
                link.heard = now  # its silence begins when one of them reads on, or another request comes
            late = link.take_overdue(now)
            if late and not link.ending and now - link.heard >= _patience(inside):
                self._blame(link, late)
                self._pool.end(link, HUNG)
            for invocation in late:
                self._fail(invocation, ResponseTimeoutError(invocation.name, _seconds_allowed(invocation, now)))

    def _blame(self, link: HostLink, late: Sequence[Invocation]) -> None:
        """Count a death for the models of late requests that a hanging host runs: the others only wait in it."""
        running = self._pool.running_in(link)
        suspects = [one for one in late if one.frame_id in running] if running else late
        for resident in {invocation.resident for invocation in suspects} - {None}:
            assert resident is not None
            resident.record.died(self._time())

    # --- deaths -----------------------------------------------------------------------------------------------------

    def rescue(self, death: HostDeath) -> None:
        """Retry once what was running in a host that died, elsewhere; tell those for whom that was the second time.

        What only waited inside is sent again as often as it takes. The host's models have left it by now.
        """
        running = death.running
        suspects = [one for one in death.inside if one.frame_id in running] if running else death.inside
        for invocation in suspects:
            invocation.attempts += 1
        for resident in {invocation.resident for invocation in suspects}:
            assert resident is not None
            resident.record.died(self._time())
        for invocation in death.inside:
            invocation.link = None
            if invocation.attempts < MOST_ATTEMPTS and not invocation.has_begun:
                self._send_again(invocation, death)
            else:
                self._tell_of_death(invocation, death)
        for invocation in death.unsent:
            self._send_again(invocation, death)

    def _send_again(self, invocation: Invocation, death: HostDeath) -> None:
        """Send a request to another host of its model, or keep it until the model is loaded again, if it will be."""
        resident = invocation.resident
        assert resident is not None
        if invocation.is_abandoned:
            self._fail(invocation, CancelledRequestError())
        elif resident.record.state is not State.READY:
            self._tell_of_death(invocation, death)
        elif resident.links:
            resident.least_busy().infer(resident.record.number, invocation)
        else:
            resident.waiting.append(invocation)

    def _tell_of_death(self, invocation: Invocation, death: HostDeath) -> None:
        if death.was_killed:
            self._fail(invocation, HostOutOfMemoryError(invocation.name))
        else:
            self._fail(invocation, HostDiedError(invocation.name, death.how))


def _patience(inside: Sequence[Invocation]) -> float:
    """How long a host may say nothing: as long as any of its requests may take. For ever, if all wait for clients."""
    computing = (invocation for invocation in inside if not invocation.waits_for_client)
    return max(map(_response_seconds, computing), default=math.inf)


def _response_seconds(invocation: Invocation) -> float:
    return 0.0 if invocation.resident is None else invocation.resident.response_seconds


def _seconds_allowed(invocation: Invocation, now: float) -> float:
    """Return the time that a late request had: that of a stream, if it was one and did not fall silent before."""
    resident = invocation.resident
    if resident is not None and invocation.has_begun and invocation.deadline <= now:
        return max(resident.stream_seconds, resident.response_seconds)
    return _response_seconds(invocation)


def _not_found(invocation: Invocation, reason: str) -> None:
    """Tell that the model is not here, so that a platform knows that it may load it again."""
    invocation.fail(ModelNotFoundError(invocation.name, reason=reason))
