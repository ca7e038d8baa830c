from collections.abc import Iterator

import pytest
from servers import Servers


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.close()


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
