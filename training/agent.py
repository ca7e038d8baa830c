"""The agent: imports torch once, forks the ranks of this host, and tells the supervisor what becomes of them.

It starts no thread and touches no GPU before the fork. Called as `python -m mooring.training.agent FD`, with the other
end of FD, a stream of JSON lines, in the supervisor's hands.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import script
from .entry_point import Command, EntryPoint, Function, Module, Script

PR_SET_PDEATHSIG = 1
PORT_BYTES = 5
ORDER_END = b"\n"


@dataclass(frozen=True)
class RankOrder:
    """One rank to be started, with the write ends of its pipes."""

    rank: int
    variables: dict[str, str]
    stdout: int
    stderr: int
    error_file: Path


def main() -> int:
    """Start the ranks and wait for them. In a forked rank this returns the script's own exit code."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _die_with(os.getppid())
    # A terminal's Ctrl-C goes to the whole group, and PID 1's forwarding to ranks is the supervisor's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.loads(_read_line(control))
    entry_point = _entry_point(order)
    if not isinstance(entry_point, Command):
        import torch.distributed  # noqa: F401 - once, for all ranks
    gc.collect()
    gc.freeze()  # so that no rank's collector touches, and so copies, what it shares with the others
    gate, opener = os.pipe()
    agent = os.getpid()
    pids: dict[int, int] = {}
    ranks = [RankOrder(**{**fields, "error_file": Path(fields["error_file"])}) for fields in order["ranks"]]
    for rank in ranks:
        pid = os.fork()
        if pid == 0:
            control.close()
            os.close(opener)
            _die_with(agent)
            _become_rank(rank, ranks, gate)
            if order["directory"]:
                os.chdir(order["directory"])
                sys.path.insert(0, order["directory"])
            return script.run(entry_point, tuple(order["arguments"]), rank.error_file)
        pids[pid] = rank.rank
    _send(control, {"pids": {rank: pid for pid, rank in pids.items()}})
    for rank in ranks:
        os.close(rank.stdout)
        os.close(rank.stderr)
    # The store comes after the forks: it runs a thread, and a fork must not copy half of one.
    store = _open_store(order)
    os.write(opener, f"{store.port if store else 0:{PORT_BYTES}}".encode() * len(ranks))
    _wait(control, pids)
    return 0


def _read_line(control: socket.socket) -> bytes:
    with control.makefile("rb", buffering=0) as stream:
        return stream.readline()


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + ORDER_END)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be asked for


def _entry_point(order: dict[str, Any]) -> EntryPoint:
    kind, value = order["entry_point"]
    if kind == "script":
        return Script(Path(value))
    if kind == "function":
        return Function(*value)
    return Module(value) if kind == "module" else Command(tuple(value))


def _become_rank(rank: RankOrder, ranks: list[RankOrder], gate: int) -> None:
    """In the child: a group, streams and variables of its own; then wait until there is a place to meet."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(rank.stdout, 1)
    os.dup2(rank.stderr, 2)
    for other in ranks:
        os.close(other.stdout)
        os.close(other.stderr)
    os.environ.update(rank.variables)
    port = os.read(gate, PORT_BYTES)
    os.close(gate)
    if int(port):
        os.environ["MASTER_PORT"] = port.decode().strip()


def _open_store(order: dict[str, Any]) -> Any:
    """Open the store where ranks meet, if they meet here. Any free port will do unless other hosts must know it."""
    if not order["meeting"]:
        return None
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # missing from its __all__

    # Given only a port, torch listens on every address; one host's ranks need no more than the loopback.
    address = "0.0.0.0" if order["port"] else "127.0.0.1"  # noqa: S104 - other hosts' ranks must reach it
    listener = socket.create_server((address, order["port"]))
    port = listener.getsockname()[1]
    return TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(), use_libuv=True
    )


def _wait(control: socket.socket, pids: dict[int, int]) -> None:
    """Report each rank's wait status as it ends."""
    while pids:
        pid, status = os.waitpid(-1, 0)
        if pid in pids:
            _send(control, {"rank": pids.pop(pid), "status": status})


if __name__ == "__main__":
    sys.exit(main())
