"""Fixtures of the black-box tests. Each test gets its own gateway; the mock provider runs on and forgets."""

import os

import pytest
from harness import Gateway, configuration, start_mock, stop_mock


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; runs only where PENSTOCK_LONG=1")


def pytest_collection_modifyitems(config, items):
    """Without PENSTOCK_LONG the long ones are not part of the run, which is not the same as skipped."""
    if os.environ.get("PENSTOCK_LONG") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def mock_process():
    process, mock = start_mock()
    yield mock
    stop_mock(process)


@pytest.fixture
def mock(mock_process):
    """A provider that has seen nothing yet."""
    mock_process.admin("reset")
    return mock_process


@pytest.fixture
def start_gateway(tmp_path):
    """start_gateway(configuration as text or dict, env=...) -> Gateway; stopped and checked with the test."""
    gateways = []

    def start(config, **options):
        folder = tmp_path / f"gateway-{len(gateways)}"
        folder.mkdir()
        gateways.append(Gateway(folder, config, **options))
        return gateways[-1]

    yield start
    faults = []
    for gateway in gateways:
        try:
            gateway.stop()
        except AssertionError as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


@pytest.fixture
def gateway(start_gateway, mock):
    """The mock behind /p/mock/: a cent a call, and models priced by the token."""
    return start_gateway(
        configuration(
            mock,
            {
                "api": "openai",
                "prices": {
                    "per_call_usd": "0.01",
                    "default_model": {"input_usd_per_million": "0.15", "output_usd_per_million": "0.6"},
                },
            },
        )
    )
