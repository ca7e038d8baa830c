"""A repository of more models than fit, asked by several clients at once: every request finds its model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from models import scale_model
from servers import Servers

KIB = 1 << 10
NAMES = [f"model-{number}" for number in range(8)]
# Five of the smallest models fit: more than clients, so that each finds room, and fewer than models.
BUDGET = 1400 * KIB
CLIENTS = 3
REQUESTS = 20


@pytest.mark.slow  # an eviction takes up to a second
@pytest.mark.parametrize("eviction", ["lru", "reuse"])
def test_model_that_is_being_evicted_is_loaded_again_for_who_asks_for_it(
    start_server: Servers, tmp_path: Path, eviction: str
) -> None:
    """A request that came while its model made room for another was told that there is no such model."""
    for factor, name in enumerate(NAMES, start=1):
        scale_model(tmp_path / name, factor=float(factor))
    server = start_server(tmp_path, "repository", eviction=eviction, budget_bytes=BUDGET)

    def ask(client: int) -> list[tuple[int, str]]:
        answers = []
        for number in range(REQUESTS):
            model = (number * (1 + client % 2) + client) % len(NAMES)
            response = server.invoke(NAMES[model], [[1.0, 0.0, 0.0]])
            if (response.status_code, response.text) != (200, f"[[{float(model + 1)},0.0,0.0]]"):
                answers.append((response.status_code, response.text))
        return answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        wrong = [answer for answers in clients.map(ask, range(CLIENTS)) for answer in answers]
    assert wrong == []
