"""The ranks of a run on several hosts, all on this machine, each with the folder that its host has."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forked_scripts import ForkedScript


class Ranks:
    """The processes of a run. `bases` are the job's folders, one for each host; the script finds SETTINGS as JSON."""

    def __init__(self, script: str, bases: list[Path], per_host: int, settings: Mapping[str, Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = []
        for rank in range(len(bases) * per_host):
            host, local = divmod(rank, per_host)
            variables = {
                "SAGEMAKER_BASE_DIR": str(bases[host]),
                "SM_CURRENT_HOST": f"algo-{host + 1}",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "WORLD_SIZE": str(len(bases) * per_host),
                "LOCAL_RANK": str(local),
                "LOCAL_WORLD_SIZE": str(per_host),
                "SETTINGS": json.dumps(settings),
                "OMP_NUM_THREADS": "1",
            }
            self.processes.append(ForkedScript(script, variables))

    def wait_until_listening(self) -> None:
        for process in self.processes:
            process.wait_for_line("listening")

    def results(self) -> list[Any]:
        """What each rank has printed last, as JSON."""
        codes = [process.wait() for process in self.processes]
        assert codes == [0] * len(codes), [process.output() for process in self.processes]
        return [json.loads(process.output().splitlines()[-1]) for process in self.processes]

    def problems(self) -> list[str]:
        """What each rank says as it fails."""
        assert 0 not in [process.wait() for process in self.processes]
        return [process.output() for process in self.processes]
