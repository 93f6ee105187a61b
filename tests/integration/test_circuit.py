"""A sick provider is left alone: its circuit opens, and comes back by exactly the configured trials (G6)."""

import pytest
from harness import configuration, in_parallel, until, upstream

PATH = "/p/mock/anything"


def state(gateway, provider="mock"):
    return gateway.metric("external_api_circuit_breaker_state", provider=provider)


def circuit(**fields):
    return {"circuit": {"min_calls": 5, "window": "60s", "cooldown": "1s", "half_open_trials": 3} | fields}


def fail_until_open(gateway, mock, calls=5):
    assert state(gateway) == 0
    statuses = [gateway.get(PATH).status_code for _ in range(calls)]
    assert statuses == [503] * calls
    assert state(gateway) == 2
    assert mock.stats()["requests"] == calls


def check_refusal(answer):
    assert answer.status_code == 503
    assert answer.headers["Penstock-Reason"] == answer.json()["reason"] == "policy_circuit_open"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in answer.headers


def test_a_provider_that_always_fails_is_cut_off_at_its_threshold(start_gateway, mock):
    mock.script(status=503)
    gateway = start_gateway(configuration(mock, circuit(cooldown="1m")))
    fail_until_open(gateway, mock)
    for answer in in_parallel(8, 50, lambda _: gateway.get(PATH)):
        check_refusal(answer)
        assert 55 <= int(answer.headers["Retry-After"]) <= 60
    assert mock.stats()["requests"] == 5
    provider = gateway.provider()
    assert provider["status"] == "unhealthy"
    assert provider["circuit_breaker"] == {"state": "open", "failure_count": 5, "can_request": False}
    assert gateway.health()["status"] == "degraded"
    assert gateway.metric("penstock_admissions_total", decision="refuse", reason="policy_circuit_open") == 50


@pytest.mark.parametrize("trials", [1, 3])
def test_exactly_the_configured_trials_go_through_and_close_it(start_gateway, mock, trials):
    mock.script(status=503, times=5)
    gateway = start_gateway(configuration(mock, circuit(half_open_trials=trials)))
    fail_until_open(gateway, mock)
    mock.script(latency_us=500_000)  # the trials last longer than the burst
    until(lambda: state(gateway) == 1)
    answers = in_parallel(20, 60, lambda _: gateway.get(PATH))
    passed = [answer for answer in answers if answer.status_code == 200]
    # While the trials were under way nothing else passed. Those that came after them passed freely.
    trial_starts = [entry["start_ns"] for entry in mock.log()[5:]]
    first_end = trial_starts[0] + 500_000_000
    assert len([start for start in trial_starts if start < first_end - 1_000_000]) == trials
    for answer in answers:
        if answer.status_code != 200:
            check_refusal(answer)
    assert len(passed) >= trials
    assert state(gateway) == 0
    assert gateway.get(PATH).status_code == 200


def test_a_failed_trial_opens_it_again_for_longer(start_gateway, mock):
    mock.script(status=503)
    gateway = start_gateway(configuration(mock, circuit(half_open_trials=1)))
    fail_until_open(gateway, mock)
    until(lambda: state(gateway) == 1)
    assert gateway.get(PATH).headers["Penstock-Reason"] == "provider_error"  # the trial
    refused = gateway.get(PATH)
    check_refusal(refused)
    assert int(refused.headers["Retry-After"]) == 2  # twice the first second
    assert mock.stats()["requests"] == 6


def test_callers_mistakes_never_open_it(start_gateway, mock):
    gateway = start_gateway(configuration(mock, circuit(min_calls=2)))
    for status in [400, 401, 403, 404, 409, 413, 422]:
        for _ in range(4):
            assert gateway.get(f"/p/mock/status/{status}").status_code == status
    assert state(gateway) == 0
    assert gateway.provider()["circuit_breaker"]["failure_count"] == 0


def test_rate_limits_of_the_provider_never_open_it(start_gateway, mock):
    gateway = start_gateway(configuration(mock, circuit(min_calls=2) | {"wait": {"default": "0s"}}))
    for _ in range(10):
        assert gateway.get("/p/mock/status/429").status_code == 429
    assert state(gateway) == 0


@pytest.mark.parametrize("fault", ["cut_before_head=1", "fault=garbage", "fault=bad_cl"])
def test_broken_answers_open_it(start_gateway, mock, fault):
    gateway = start_gateway(configuration(mock, circuit(min_calls=3)))
    for _ in range(3):
        assert gateway.get(f"{PATH}?{fault}").status_code == 502
    assert state(gateway) == 2


def test_slow_answers_open_it(start_gateway, mock):
    gateway = start_gateway(configuration(mock, circuit(slow_after="20ms", slow_ratio=0.5, min_calls=4)))
    statuses = [gateway.get(f"{PATH}?latency_us=60000").status_code for _ in range(5)]
    assert statuses == [200] * 4 + [503]


def test_half_of_a_large_number_is_not_enough_when_less_fail(start_gateway, mock):
    gateway = start_gateway(configuration(mock, circuit(failure_ratio=0.5, min_calls=4)))
    for number in range(40):
        gateway.get(f"{PATH}?status={503 if number % 3 == 2 else 200}")
    assert state(gateway) == 0


def test_each_provider_has_its_own(start_gateway, mock):
    providers = {"mock": upstream(mock, **circuit()), "well": upstream(mock, **circuit())}
    gateway = start_gateway(configuration(mock, providers=providers))
    for _ in range(5):
        gateway.get(f"{PATH}?status=503")
    assert gateway.get(PATH).status_code == 503
    assert gateway.get("/p/well/anything").status_code == 200
    assert (state(gateway), state(gateway, "well")) == (2, 0)


def test_a_caller_who_hangs_up_during_the_trial_does_not_wedge_it(start_gateway, mock):
    """The trial's stream is cut by its caller; the slot is free again and the next one decides."""
    mock.script(status=503, times=5)
    provider = circuit(half_open_trials=1) | {"on_disconnect": "cancel"}
    gateway = start_gateway(configuration(mock, provider))
    fail_until_open(gateway, mock)
    until(lambda: state(gateway) == 1)
    with gateway.client.stream("GET", "/p/mock/drip/2000?gap_us=1000") as response:
        assert response.status_code == 200
    until(lambda: gateway.provider()["in_flight"] == 0)
    until(lambda: gateway.get(PATH).status_code == 200)
    assert state(gateway) == 0
