from collections.abc import Iterator
from pathlib import Path

import pytest
from models import scale_model
from servers import RunningServer, Servers


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.close()


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "fronts"])
def fronts(request: pytest.FixtureRequest) -> int:
    """How many processes speak HTTP for the front door: for modules whose tests hold with any number of them."""
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(start_server: Servers, root: Path) -> RunningServer:
    """The server of modules that need none of their own: two small models, and the console."""
    server = start_server(root, console="local", budget=512 << 20)
    for name in ("iris", "prices"):
        assert server.load(name, scale_model(root / name)).status_code == 200
    return server


@pytest.fixture(scope="module", autouse=True)
def _servers_of_a_module(start_server: Servers) -> Iterator[None]:
    """End what a module's fixtures started when the module is over: idle servers cost the others time."""
    before = start_server.count
    yield
    start_server.close(before)


@pytest.fixture(autouse=True)
def _servers_of_a_test(start_server: Servers) -> Iterator[None]:
    """End what a test started by itself when the test is over; its module's were there before."""
    before = start_server.count
    yield
    start_server.close(before)
