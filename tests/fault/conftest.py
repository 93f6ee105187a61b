"""Fixtures of the fault tests. They share the mock provider and the gateway's driver with tests/integration."""

import pytest
from faults import Clock, build_machine
from harness import start_mock, stop_mock


@pytest.fixture(scope="session")
def mock_process():
    process, mock = start_mock()
    yield mock
    stop_mock(process)


@pytest.fixture
def mock(mock_process):
    mock_process.admin("reset")
    return mock_process


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    return build_machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")
