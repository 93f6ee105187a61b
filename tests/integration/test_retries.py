"""Second tries and other providers: only where it is safe, each with its own reservation, never as a storm."""

import socket

import pytest
from harness import configuration, in_parallel, nano, until, upstream
from raw_http import Upstream, ok

CENT = nano("0.01")


def retrying(mock, **fields):
    retry = {
        "max_attempts": 3,
        "backoff": "1ms",
        "max_backoff": "5ms",
        "budget_ratio": 1,
        "budget_per_second": 1000,
    }
    circuit = {"min_calls": 1000}
    return upstream(mock, **({"retry": retry | fields.pop("retry", {}), "circuit": circuit} | fields))


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def dead(mock, **fields):
    return retrying(mock, base_url=f"http://127.0.0.1:{closed_port()}", **fields)


def route(*providers, **fields):
    return {"way": {"targets": [{"provider": name} for name in providers]} | fields}


def paths(mock):
    return [entry["path"].split("?")[0] for entry in mock.log()]


def test_a_503_is_tried_again(start_gateway, mock):
    mock.script(status=503, times=2)
    gateway = start_gateway(
        configuration(mock, providers={"mock": retrying(mock, prices={"per_call_usd": "0.01"})})
    )
    answer = gateway.get("/p/mock/anything")
    assert answer.status_code == 200
    assert [entry["status"] for entry in mock.log()] == [503, 503, 200]
    assert nano(answer.headers["Penstock-Cost"]) == CENT
    assert gateway.calls()[0]["attempts"] == 3
    assert gateway.metric("penstock_retries_total", provider="mock", outcome="made") == 2
    assert gateway.metric("penstock_admissions_total", decision="admit") == 3


def test_the_last_failure_is_the_providers_own_answer(start_gateway, mock):
    mock.script(status=503)
    gateway = start_gateway(configuration(mock, providers={"mock": retrying(mock)}))
    answer = gateway.get("/p/mock/anything")
    assert answer.status_code == 503
    assert answer.headers["Penstock-Reason"] == "provider_error"
    assert answer.json() == mock.call("GET", "/anything")[2]
    assert len(mock.log()) == 4  # three, and the one of this test


@pytest.mark.parametrize("how", ["status=503", "cut_before_head=1"])
def test_a_post_is_not_repeated_when_it_may_have_been_processed(start_gateway, mock, how):
    providers = {"mock": retrying(mock), "bold": retrying(mock, retry={"unsafe_methods": True})}
    gateway = start_gateway(configuration(mock, providers=providers))
    gateway.post(f"/p/mock/anything/careful?{how}", content=b"x")
    assert paths(mock) == ["/anything/careful"]
    gateway.post(f"/p/bold/anything/bold?{how}", content=b"x")
    assert paths(mock)[1:] == ["/anything/bold"] * 3
    gateway.client.put(f"/p/mock/anything/put?{how}", content=b"x")  # idempotent by its definition
    assert paths(mock)[4:] == ["/anything/put"] * 3


def test_a_post_that_was_refused_unworked_is_tried_again(start_gateway, mock):
    """429 and 503 with a time to come back say that nothing was done."""
    mock.script(status=503, retry_after="0", times=1)
    gateway = start_gateway(configuration(mock, providers={"mock": retrying(mock)}))
    assert gateway.post("/p/mock/anything", content=b"x").status_code == 200
    assert [entry["status"] for entry in mock.log()] == [503, 200]


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_a_retry_does_not_mend_is_passed_on(start_gateway, mock, status):
    gateway = start_gateway(configuration(mock, providers={"mock": retrying(mock)}))
    assert gateway.get(f"/p/mock/status/{status}").status_code == status
    assert len(mock.log()) == 1


def test_a_body_is_sent_again_whole(start_gateway, mock):
    mock.script(status=503, times=2)
    gateway = start_gateway(
        configuration(mock, providers={"mock": retrying(mock, retry={"unsafe_methods": True})})
    )
    body = bytes(range(256)) * 200
    answer = gateway.post("/p/mock/anything", content=body)
    assert answer.json()["body_length"] == len(body)


def test_a_body_too_large_to_keep_is_sent_once(start_gateway, mock):
    mock.script(status=503, times=1)
    gateway = start_gateway(
        configuration(mock, providers={"mock": retrying(mock, retry={"unsafe_methods": True})})
    )
    assert gateway.post("/p/mock/anything", content=b"x" * 300_000).status_code == 503
    answer = gateway.post("/p/mock/anything", content=b"x" * 300_000)
    assert answer.json()["body_length"] == 300_000
    assert len(mock.log()) == 2


def test_each_attempt_has_its_own_reservation(start_gateway, mock):
    """Two cents allow two attempts that may have been billed; the third is refused by the budget."""
    provider = retrying(
        mock, budgets=[{"window": "daily", "limit_usd": "0.02"}], prices={"per_call_usd": "0.01"}
    )
    gateway = start_gateway(configuration(mock, providers={"mock": provider}))
    answer = gateway.get("/p/mock/anything?cut_before_head=1")
    assert len(mock.log()) == 2
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_error")
    assert nano(answer.headers["Penstock-Cost"]) == 2 * CENT
    assert gateway.provider()["budget"]["daily_spent_usd"] == 0.02
    assert gateway.get("/p/mock/anything").headers["Penstock-Reason"] == "policy_budget_exceeded"


def test_limits_count_attempts_not_calls(start_gateway, mock):
    mock.script(status=503)
    gateway = start_gateway(configuration(mock, providers={"mock": retrying(mock, limits="4/minute")}))
    for _ in range(3):
        gateway.get("/p/mock/anything")
    assert len(mock.log()) == 4


def test_retries_have_a_budget(start_gateway, mock):
    """Everything fails: at most first attempts + ratio of them + what ten seconds save."""
    mock.script(status=503)
    provider = retrying(mock, retry={"max_attempts": 5, "budget_ratio": 0.2, "budget_per_second": 1})
    gateway = start_gateway(configuration(mock, providers={"mock": provider}))
    answers = in_parallel(8, 200, lambda _: gateway.get("/p/mock/anything"))
    assert {answer.status_code for answer in answers} == {503}
    attempts = len(mock.log())
    assert 200 + 10 <= attempts <= 200 + 0.2 * 200 + 10 + 10  # the test itself takes less than ten seconds
    made = gateway.metric("penstock_retries_total", outcome="made")
    assert made == attempts - 200
    assert gateway.metric("penstock_retries_total", outcome="refused") > 0


def test_a_dead_provider_falls_back(start_gateway, mock):
    price = {"prices": {"per_call_usd": "0.01"}}
    providers = {"dead": dead(mock, **price), "mock": retrying(mock, **price)}
    gateway = start_gateway(configuration(mock, providers=providers, routes=route("dead", "mock")))
    answer = gateway.post("/r/way/anything/x?y=1", content=b"body")  # nothing was sent: a POST may go on
    assert answer.status_code == 200
    assert answer.headers["Penstock-Provider"] == "mock"
    assert (answer.json()["path"], answer.json()["body"]) == ("/anything/x", "body")
    assert nano(answer.headers["Penstock-Cost"]) == CENT
    assert gateway.calls()[0]["route"] == "way"
    assert gateway.metric("external_api_calls_total", provider="dead", status="provider_unreachable") == 3


def test_a_failing_provider_falls_back(start_gateway, mock):
    mock.script(match="/anything/fail", status=503, times=3)
    providers = {"first": retrying(mock), "mock": retrying(mock)}
    gateway = start_gateway(configuration(mock, providers=providers, routes=route("first", "mock")))
    answer = gateway.get("/r/way/anything/fail")
    assert (answer.status_code, answer.headers["Penstock-Provider"]) == (200, "mock")
    assert len(mock.log()) == 4


@pytest.mark.parametrize(
    "refusal",
    [
        {"limits": "1/hour"},
        {"budgets": [{"window": "daily", "limit_usd": "0.01"}], "prices": {"per_call_usd": "0.01"}},
    ],
    ids=["limit", "budget"],
)
def test_a_refused_provider_falls_back(start_gateway, mock, refusal):
    providers = {"first": retrying(mock, **refusal), "mock": retrying(mock)}
    gateway = start_gateway(configuration(mock, providers=providers, routes=route("first", "mock")))
    used = [gateway.get("/r/way/anything").headers["Penstock-Provider"] for _ in range(3)]
    assert used == ["first", "mock", "mock"]


def test_an_open_circuit_falls_back(start_gateway, mock):
    mock.script(match="/anything", status=500, times=2)
    providers = {"first": retrying(mock, circuit={"min_calls": 2, "cooldown": "1m"}), "mock": retrying(mock)}
    gateway = start_gateway(configuration(mock, providers=providers, routes=route("first", "mock")))
    statuses = [gateway.get("/r/way/anything").status_code for _ in range(3)]
    assert statuses == [500, 500, 200]


def test_no_fallback_where_it_is_off(start_gateway, mock):
    providers = {"dead": dead(mock), "mock": retrying(mock)}
    config = configuration(mock, providers=providers, routes=route("dead", "mock", fallback=False))
    answer = start_gateway(config).get("/r/way/anything")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")
    assert mock.log() == []


def test_when_all_fail_the_failure_of_a_provider_is_told(start_gateway, mock):
    providers = {"dead": dead(mock), "mock": retrying(mock, limits="1/hour")}
    gateway = start_gateway(configuration(mock, providers=providers, routes=route("dead", "mock")))
    assert gateway.get("/r/way/anything").status_code == 200
    answer = gateway.get("/r/way/anything")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")


def test_weights_are_roughly_kept(start_gateway, mock):
    providers = {name: upstream(mock) for name in ("one", "three")}
    targets = [{"provider": "one", "weight": 1}, {"provider": "three", "weight": 3}]
    routes = {"way": {"strategy": "weighted", "targets": targets}}
    gateway = start_gateway(configuration(mock, providers=providers, routes=routes, log={"calls": "none"}))
    used = [
        answer.headers["Penstock-Provider"]
        for answer in in_parallel(8, 600, lambda _: gateway.get("/r/way/anything"))
    ]
    # 450 of 600 with a standard deviation of 10.6; five of them off is one run in two million.
    assert 397 <= used.count("three") <= 503
    assert used.count("one") == 600 - used.count("three")


def test_a_429_pauses_the_provider_and_does_not_open_its_circuit(start_gateway, mock):
    mock.script(status=429, retry_after="2", times=1)
    provider = upstream(mock, circuit={"min_calls": 1}, wait={"max": "0s"})
    gateway = start_gateway(configuration(mock, providers={"mock": provider}))
    first = gateway.get("/p/mock/anything")
    assert (first.status_code, first.headers["Penstock-Reason"]) == (429, "provider_rate_limited")
    assert first.headers["Retry-After"] == "2"
    paused = gateway.get("/p/mock/anything")
    assert (paused.status_code, paused.headers["Penstock-Reason"]) == (429, "policy_rate_limited")
    assert int(paused.headers["Retry-After"]) in (1, 2, 3)  # with up to a tenth, so that not all come at once
    assert gateway.metric("external_api_circuit_breaker_state", provider="mock") == 0
    until(lambda: gateway.get("/p/mock/anything").status_code == 200)
    first, second = (entry["start_ns"] for entry in mock.log())
    assert second - first >= 1_900_000_000


def test_a_429_that_asks_for_a_short_wait_is_waited_for(start_gateway, mock):
    mock.script(status=429, header="retry-after-ms: 300", times=1)
    provider = retrying(mock, retry={"max_backoff": "1s"})
    gateway = start_gateway(configuration(mock, providers={"mock": provider}))
    answer = gateway.get("/p/mock/anything")
    assert answer.status_code == 200
    first, second = (entry["start_ns"] for entry in mock.log())
    assert second - first >= 290_000_000
    assert int(answer.headers["Penstock-Waited"].removesuffix("ms")) >= 300


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_the_provider_has_ended_is_no_failure(start_gateway, mock, method):
    """The commonest fault of pooled connections: it must cost neither a retry nor the call. The provider closes
    after each answer, without having said so."""
    provider = Upstream(lambda request, stream: stream.send(ok()) and False)
    try:
        fields = {"base_url": f"http://127.0.0.1:{provider.port}", "prices": {"per_call_usd": "0.01"}}
        gateway = start_gateway(configuration(mock, fields))
        for _ in range(20):
            answer = gateway.client.request(method, "/p/mock/", content=b"x")
            assert answer.status_code == 200
            assert nano(answer.headers["Penstock-Cost"]) == CENT
            until(lambda: provider.streams[-1].socket.fileno() == -1)  # it has closed
        assert len(provider.requests) == 20
        assert gateway.metric("penstock_retries_total", outcome="made") == 0
    finally:
        provider.close()
