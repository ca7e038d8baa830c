"""From asking for a model to its first answer: at first sight, and when it has been there before."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from examples.serving.many_models.fleet import write_model

from .calls import invoke, register, unload
from .client import Client, milliseconds
from .own import Listening, mooring, multi_model_server
from .plan import Plan
from .progress import Progress
from .record import Row
from .throughput import noting_failures

FIRST, SECOND = "first load, ms", "second load, ms"
LOADED = "Mooring, POST /models"
ON_REQUEST = "Mooring, on its first request"
PEER = "multi-model-server"
OURS_A_ROUND = 20
PEERS_A_ROUND = 4
MODEL_S = 0.03
PEERS_MODEL_S = 2.0
START_S = 10.0
Act = Callable[[Client, str], object]


@dataclass(frozen=True)
class Loader:
    """A server, and how a model comes, answers and goes there."""

    name: str
    server: Listening
    load: Act
    unload: Act
    models: Iterator[str]
    count: int  # a round

    def round(self, row: Row) -> None:
        """Load models that the server has never seen, unload them, load them again."""
        with self.server.client() as client:
            for name in itertools.islice(self.models, self.count):
                row.add(self.name, FIRST, milliseconds(lambda name=name: self.load(client, name)))  # type: ignore[misc]
                self.unload(client, name)
                row.add(self.name, SECOND, milliseconds(lambda name=name: self.load(client, name)))  # type: ignore[misc]
                self.unload(client, name)


class ColdLoad:
    """Models of 2 KB, each with weights of its own, whose files lie in the page cache."""

    def seconds(self, plan: Plan) -> float:
        """Return how long it is thought to take."""
        return START_S + plan.rounds * (2 * OURS_A_ROUND * MODEL_S + PEERS_A_ROUND * PEERS_MODEL_S)

    def measure(self, plan: Plan, row: Row, progress: Progress, folder: Path) -> None:
        """Fill the row's cells: `name` -> `FIRST` and `SECOND` -> milliseconds a model."""
        models = folder / "models"  # where the platform has them, of a folder in place of its own
        for number in range(plan.rounds * OURS_A_ROUND + 1):
            write_model(models / f"m{number}", number)
        files = {one.name: one / "model.onnx" for one in models.iterdir()}
        platform = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BASE_DIR": str(folder)}
        with ExitStack() as stack:
            loaders = []
            if not row.cell(LOADED, FIRST):
                server = stack.enter_context(mooring("--host", "127.0.0.1", told=platform))
                loaders.append(Loader(LOADED, server, _load_from(models), unload, iter(files), OURS_A_ROUND))
            if not row.cell(ON_REQUEST, FIRST):
                server = stack.enter_context(mooring("--repository", str(models)))
                loaders.append(Loader(ON_REQUEST, server, invoke, unload, iter(files), OURS_A_ROUND))
            if not row.cell(PEER, FIRST) and plan.takes(PEER):
                with noting_failures(PEER, row, progress):
                    server = stack.enter_context(multi_model_server(files))
                    loaders.append(Loader(PEER, server, register, unload, iter(files), PEERS_A_ROUND))
            for loader in loaders:  # a process's first model is not a model's first load
                with loader.server.client() as client:
                    name = next(loader.models)
                    loader.load(client, name)
            for number, loader in itertools.product(range(plan.rounds), loaders):
                with noting_failures(loader.name, row, progress):
                    loader.round(row)
                    progress.say(f"round {number + 1} of {plan.rounds}, {loader.name}", (number + 1) / plan.rounds)


def _load_from(folder: Path) -> Act:
    def load(client: Client, name: str) -> None:
        client.post("/models", {"model_name": name, "url": str(folder / name)})
        invoke(client, name)

    return load
