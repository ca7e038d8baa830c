"""Our server and multi-model-server without a model, for measurements that load models themselves."""

import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from .client import Client
from .peer import OURS, low_port
from .running import DidNotStartError, Group, end_of, folder_of, group
from .servers import MULTI_MODEL_SERVER
from .starts import mms_command, surroundings

START_S = 60.0
PAUSE_S = 0.002


@dataclass(frozen=True)
class Listening:
    """A server whose /ping is healthy."""

    group: Group
    port: int
    folder: Path
    start_s: float  # from its start to then

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Give a connection to it, for the length of the block, in which the server moves."""
        client = Client(self.port)
        try:
            with self.group.moving():
                yield client
        finally:
            client.close()


@dataclass(frozen=True)
class Memory:
    """What a server and its processes hold, in bytes."""

    proportional: int  # pages that several share count in parts
    private: int
    private_of_first: int  # of the process that was started: of ours, the front door


def memory(server: Listening) -> Memory:
    """Return what a server holds now."""
    infos = [process.memory_full_info() for process in server.group.members()]
    return Memory(sum(info.pss for info in infos), sum(info.uss for info in infos), infos[0].uss)


@contextmanager
def mooring(*arguments: str, told: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> Iterator[Listening]:
    """Run `serve` with these arguments for the length of the block, with a cache of its own, which is empty."""
    with folder_of("mooring") as folder:
        port = low_port()
        command = (*before, str(OURS / "serve"), *arguments, "--port", str(port))
        with group(command, {**surroundings(OURS, folder), **(told or {})}, folder) as found:
            yield _when_healthy(found, port, folder)


@contextmanager
def multi_model_server(models: Mapping[str, Path]) -> Iterator[Listening]:
    """Run multi-model-server for the length of the block, with models to register from files."""
    from .starts import model_for_mms

    with folder_of("mms") as folder:
        binaries, port = MULTI_MODEL_SERVER.environment(), low_port()
        (folder / "store").mkdir()
        for name, file in models.items():
            model_for_mms(file, folder / "store" / name)
        command = mms_command(binaries, port, folder)
        with group(command, surroundings(binaries, folder), folder) as found:
            yield _when_healthy(found, port, folder)


def _when_healthy(found: Group, port: int, folder: Path) -> Listening:
    started = psutil.Process(found.process.pid).create_time()
    limit = started + START_S
    while time.time() < limit and found.process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return Listening(found, port, folder, time.time() - started)
        except OSError:
            time.sleep(PAUSE_S)
        finally:
            connection.close()
    raise DidNotStartError("no /ping", end_of(folder / "log"))
