"""Where the hosts of a run meet: who is there, where the ranks of each attempt meet, and who has failed.

One store for the whole run lives on the first host at a known port; each attempt's ranks get a fresh one, since what
an earlier attempt left in it would mislead them. Stores run threads, and an agent must stay fit to fork, so each lives
in a process of its own.
"""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mooring.contract.errors import PlatformError
from mooring.runner.parentage import die_with

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - other hosts must reach it
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# Hosts end minutes apart when one of them exports; after this the first one goes, and the stores with it.
FAREWELL_S = 300.0
STORE_TIMEOUT = timedelta(seconds=30)


class MeetingError(PlatformError):
    """The hosts of a run did not come together."""


@dataclass(frozen=True)
class StoreServer:
    """A TCPStore in a process of its own, which ends with the one that opened it."""

    pid: int
    port: int

    @classmethod
    def open(cls, address: str, port: int = 0) -> "StoreServer":
        """Start a store on an address, at any free port if none is given. Raises `MeetingError` if it is taken."""
        try:
            listener = socket.create_server((address, port))
        except OSError as error:
            raise MeetingError(f"Port {port}, where the run's hosts are to meet, cannot be used: {error}") from error
        chosen = int(listener.getsockname()[1])
        opener = os.getpid()
        pid = os.fork()
        if pid == 0:
            _serve(listener, chosen, opener)
        listener.close()
        return cls(pid, chosen)

    def close(self) -> None:
        """End it."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _serve(listener: socket.socket, port: int, opener: int) -> None:
    """In the child: hold the store until the opener is gone, and never return."""
    try:
        die_with(opener)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from its __all__

        held = TCPStore(
            LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(), use_libuv=True
        )
        while os.getppid() == opener:
            time.sleep(LONGEST_PAUSE_S)
        del held
    finally:
        os._exit(0)


class Rendezvous:
    """The hosts of a run. With one host there is nobody to wait for, and nothing listens but on the loopback."""

    def __init__(self, hosts: Sequence[str], current: str, port: int, join_seconds: float) -> None:
        self._hosts = tuple(hosts)
        self._current = current
        self._port = port
        self._join_seconds = join_seconds
        self._is_first = current == self._hosts[0]
        self._servers: list[StoreServer] = []
        self._store: Any = None

    def open(self) -> None:
        """Open, or find, the store of the whole run. Raises `MeetingError` naming the host that cannot be reached."""
        if len(self._hosts) == 1:
            return
        if self._is_first:
            self._servers.append(StoreServer.open(EVERYWHERE, self._port))
        self._store = self._connect(LOOPBACK if self._is_first else self._hosts[0])

    def _connect(self, host: str) -> Any:
        """Connect to the first host, whose name may not be known yet and which may not listen yet."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from its __all__

        limit = time.monotonic() + self._join_seconds
        pause = FIRST_PAUSE_S
        while True:
            try:
                with socket.create_connection((host, self._port), timeout=LONGEST_PAUSE_S):
                    pass
                return TCPStore(host, self._port, is_master=False, wait_for_workers=False, timeout=STORE_TIMEOUT)
            except (OSError, RuntimeError) as error:
                if time.monotonic() + pause > limit:
                    problem = f"could not be reached at port {self._port} within {self._join_seconds:g} s: {error}"
                    raise MeetingError(f"Host {host} {problem}") from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def join(self, attempt: int) -> int:
        """Wait until all hosts have come to an attempt, and return the port of the store where its ranks meet.

        Raises `MeetingError` naming the hosts that have not come in time.
        """
        if self._store is None:
            return self._new_store(LOOPBACK)
        self._store.set(f"{attempt}/here/{self._current}", "1")
        if self._is_first:
            missing = self._wait_for([f"{attempt}/here/{host}" for host in self._hosts], self._join_seconds)
            answer = f"missing {' '.join(key.rsplit('/', 1)[-1] for key in missing)}" if missing else "port"
            if not missing:
                answer += f" {self._new_store(EVERYWHERE)}"
            self._store.set(f"{attempt}/answer", answer)
        elif self._wait_for([f"{attempt}/answer"], self._join_seconds + LONGEST_PAUSE_S):
            raise MeetingError(f"Host {self._hosts[0]} did not say within {self._join_seconds:g} s where ranks meet.")
        kind, _, value = self._store.get(f"{attempt}/answer").decode().partition(" ")
        if kind == "missing":
            raise MeetingError(
                f"Of {len(self._hosts)} hosts these did not come within {self._join_seconds:g} s: {value}. "
                "See their logs; MOORING_JOIN_SECONDS sets the time."
            )
        return int(value)

    def _new_store(self, address: str) -> int:
        """Open a store for one attempt's ranks; the last attempt's goes."""
        if len(self._servers) > (1 if self._store is not None else 0):
            self._servers.pop().close()
        self._servers.append(StoreServer.open(address))
        return self._servers[-1].port

    def _wait_for(self, keys: list[str], seconds: float) -> list[str]:
        """Return the keys that are not in the store when the time is up; none as soon as all are there."""
        limit = time.monotonic() + seconds
        while True:
            missing = [key for key in keys if not self._store.check([key])]
            if not missing or time.monotonic() > limit:
                return missing
            time.sleep(FIRST_PAUSE_S)

    def tell_failure(self, attempt: int, who: str) -> None:
        """Let the other hosts know that a rank has failed here."""
        if self._store is not None:
            with suppress(RuntimeError):  # the first host is gone, and knows better
                self._store.set(f"{attempt}/failed", who)

    def failure_elsewhere(self, attempt: int) -> str | None:
        """Return who has failed on another host, None if nobody has or nobody can say."""
        key = f"{attempt}/failed"
        if self._store is None:
            return None
        try:
            who = self._store.get(key).decode() if self._store.check([key]) else ""
        except RuntimeError:
            return None  # the first host has ended; the ranks notice by themselves if that matters
        return who if who and not who.endswith(f" on {self._current}") else None

    def leave(self) -> None:
        """Say that this host is done. The first host waits for the others, whose ranks may still need its stores."""
        if self._store is not None:
            with suppress(RuntimeError):
                self._store.set(f"done/{self._current}", "1")
                if self._is_first:
                    self._wait_for([f"done/{host}" for host in self._hosts], FAREWELL_S)
        for server in self._servers:
            server.close()
