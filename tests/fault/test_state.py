"""Redis stopped, standing still, or cut off in one direction under load (G9): money fails closed, limits fall to this
replica's share, nothing hangs, it is told, and it recovers by itself."""

import time

import pytest
from faults import LONG, Load, priced, quiet, spent, start
from harness import until
from tcp_proxy import TcpProxy

OUTAGE_S = 30 if LONG else 3


@pytest.fixture
def network(redis):
    proxy = TcpProxy(redis.port)
    yield proxy
    proxy.stop()


def degraded(gateway):
    return gateway.health("/health/redis")["status"] == "degraded"


def check_outage(gateway, mock, load, begin, end):
    """One outage with a hard budget on the provider, from its begin to its end."""
    until(lambda: load.answered > 50)
    began = time.monotonic()
    begin()
    until(lambda: degraded(gateway), seconds=5)
    until(lambda: gateway.metric("penstock_state_degraded", store="shared_state") == 1, seconds=5)
    assert gateway.health("/health/ready")["stores"] == "degraded"
    until(lambda: load.refused.get("policy_state_unavailable", 0) > 20)
    answered = load.answered
    started = time.monotonic()
    response = gateway.get("/p/mock/geocode?q=x&credits=1")
    assert time.monotonic() - started < 2, "it hangs"
    assert response.status_code == 503
    assert response.headers["Penstock-Reason"] == "policy_state_unavailable"
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - began)))
    assert load.answered <= answered + 16, "money did not fail closed"
    end()
    back = time.monotonic()
    until(lambda: gateway.get("/p/mock/geocode?q=x&credits=1").status_code == 200, seconds=10)
    took = time.monotonic() - back
    assert took < 2, f"recovery took {took:.1f} s"
    until(lambda: not degraded(gateway))
    load.stop()
    quiet(mock)
    until(lambda: spent(gateway.port)[1] == 0, seconds=30)
    assert spent(gateway.port)[0] >= mock.billed()
    print(f"\noutage of {OUTAGE_S} s; admitted again {took:.2f} s after its end; refused {load.refused}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["stopped", "standing still", "cut off", "answers lost", "requests lost"])
def test_an_outage(tmp_path, mock, redis, network, how):
    url = f"redis://127.0.0.1:{network.port}/1"
    gateway = start(tmp_path / "gateway", priced(mock, 1_000, state={"redis": url}))
    load = Load([gateway.port], threads=8).start()

    def set_network(**settings):
        for name, value in settings.items():
            setattr(network, name, value)
        if settings.get("refuse"):
            network.cut()

    begin, end = {
        "stopped": (redis.stop, redis.start),
        "standing still": (redis.pause, redis.resume),
        "cut off": (lambda: set_network(refuse=True), lambda: set_network(refuse=False)),
        "answers lost": (lambda: set_network(to_client="hold"), lambda: set_network(to_client="pass")),
        "requests lost": (lambda: set_network(to_server="hold"), lambda: set_network(to_server="pass")),
    }[how]
    check_outage(gateway, mock, load, begin, end)
    gateway.stop()


def test_limits_fall_to_this_replicas_share(tmp_path, mock, redis):
    """40 in 10 s for 2 replicas: each passes 20 while Redis is gone, no budget asked."""
    config = priced(
        mock,
        None,
        provider={"limits": ["40/10s"], "wait": {"default": "0s"}},
        state={"redis": redis.url},
    )
    gateways = [start(tmp_path / f"replica-{n}", config) for n in range(2)]
    for gateway in gateways:
        until(lambda one=gateway: one.health("/health/redis")["replicas"] == 2)
    redis.stop()
    for gateway in gateways:
        until(lambda one=gateway: degraded(one))
    mock.admin("reset")
    load = Load([gateway.port for gateway in gateways], threads=4).start()
    until(lambda: load.refused.get("policy_rate_limited", 0) > 200)
    load.stop()
    assert 0 < load.answered <= 40
    starts = [entry["start_ns"] for entry in mock.log()]
    assert len(starts) == load.answered
    for gateway in gateways:
        gateway.stop()


def test_limits_close_where_so_configured(tmp_path, mock, redis):
    config = priced(
        mock, None, provider={"limits": ["1000/10s"]}, state={"redis": redis.url, "on_lost": "closed"}
    )
    gateway = start(tmp_path / "gateway", config)
    assert gateway.get("/p/mock/geocode?q=x&credits=1").status_code == 200
    redis.stop()
    until(lambda: degraded(gateway))
    response = gateway.get("/p/mock/geocode?q=x&credits=1")
    assert (response.status_code, response.headers["Penstock-Reason"]) == (503, "policy_state_unavailable")
    redis.start()
    until(lambda: gateway.get("/p/mock/geocode?q=x&credits=1").status_code == 200, seconds=5)
    gateway.stop()
