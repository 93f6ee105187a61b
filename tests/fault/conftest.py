"""Fixtures of the fault tests. They share the mock provider and the gateway's driver with tests/integration."""

import pytest
from faults import Clock, build_machine, kill, started
from harness import start_mock, stop_mock
from postgres_server import PostgresServer
from redis_server import RedisServer


@pytest.fixture(scope="session")
def mock_process():
    process, mock = start_mock()
    yield mock
    stop_mock(process)


@pytest.fixture
def mock(mock_process):
    mock_process.admin("reset")
    return mock_process


@pytest.fixture(autouse=True)
def no_gateway_stays():
    yield
    while started:
        gateway = started.pop()
        if gateway.process.poll() is None:
            kill(gateway)


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    return build_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


class Database:
    """A database of its own in a PostgreSQL of its own."""

    def __init__(self, server):
        self.url = server.make_database()
        self.start, self.stop, self.pause, self.resume = (
            server.start,
            server.stop,
            server.pause,
            server.resume,
        )
        self._server = server

    def query(self, statement):
        return self._server.query(self.url, statement)


@pytest.fixture
def postgres():
    with PostgresServer() as server:
        yield Database(server)


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server
