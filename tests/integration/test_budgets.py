"""Budgets are a hard line, whatever runs at once, and what is charged is what the provider bills (G1, G3)."""

import socket

import pytest
from harness import CHAT, KEY, configuration, in_parallel, key_hash, nano, until, upstream
from raw_http import Upstream, connect, ok

CENT = nano("0.01")
DAILY = "daily"


def daily(usd, **more):
    return [{"window": DAILY, "limit_usd": usd} | more]


def settled(gateway, name="mock"):
    """What the provider's daily budget shows as spent, once nothing is held any more."""

    def at_rest():
        budget = gateway.provider(name)["budget"]
        return budget if budget["daily_held_usd"] == 0 else None

    return round(until(at_rest)["daily_spent_usd"] * 10**9)


def check_refusal(response):
    assert response.status_code == 429
    assert response.headers["Penstock-Reason"] == "policy_budget_exceeded"
    assert response.headers["x-should-retry"] == "false"
    assert 1 <= int(response.headers["Retry-After"]) <= 86_400
    assert nano(response.headers["Penstock-Cost"]) == 0
    problem = response.json()
    assert problem["reason"] == problem["error"]["code"] == "policy_budget_exceeded"
    assert problem["error"]["type"] == "insufficient_quota"


@pytest.mark.parametrize(
    "prices",
    [
        {"per_call_usd": "0.01"},
        {
            "units": [
                {"name": "credits", "pointer": "/billing/credits", "usd_per_unit": "0.005", "max_per_call": 2}
            ]
        },
    ],
    ids=["per_call", "units"],
)
def test_200_parallel_calls_never_pass_the_budget(start_gateway, mock, prices):
    mock.prices(credit_nano_usd=CENT // 2)  # two credits a call: a cent
    gateway = start_gateway(configuration(mock, {"budgets": daily("0.25"), "prices": prices}))
    answers = in_parallel(32, 200, lambda _: gateway.get("/p/mock/geocode?q=x&credits=2&latency_us=3000"))
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len(taken) == 25
    for answer in answers:
        if answer.status_code != 200:
            check_refusal(answer)
    assert mock.billed() == 25 * CENT
    assert sum(nano(answer.headers["Penstock-Cost"]) for answer in answers) == mock.billed()
    assert settled(gateway) == mock.billed()


def test_what_an_answer_did_not_use_is_free_again(start_gateway, mock):
    """Of at most two credits one is used each time: the budget is enough for all 49 that fit one by one."""
    mock.prices(credit_nano_usd=CENT // 2)
    units = [{"name": "credits", "pointer": "/billing/credits", "usd_per_unit": "0.005", "max_per_call": 2}]
    gateway = start_gateway(configuration(mock, {"budgets": daily("0.25"), "prices": {"units": units}}))
    answers = in_parallel(16, 200, lambda _: gateway.get("/p/mock/geocode?q=x&credits=1"))
    spent = sum(nano(answer.headers["Penstock-Cost"]) for answer in answers)
    assert spent == mock.billed() <= 25 * CENT
    while (answer := gateway.get("/p/mock/geocode?q=x&credits=1")).status_code == 200:
        assert nano(answer.headers["Penstock-Cost"]) == CENT // 2
    assert mock.billed() == 49 * CENT // 2  # half a cent is left, a cent would have to be held


def test_token_prices_of_mixed_sizes_are_exact(start_gateway, mock):
    mock.prices(
        input_nano_usd_per_token=150, cached_input_nano_usd_per_token=75, output_nano_usd_per_token=600
    )
    model = {
        "input_usd_per_million": "0.15",
        "cached_input_usd_per_million": "0.075",
        "output_usd_per_million": "0.6",
    }
    gateway = start_gateway(
        configuration(
            mock,
            {"api": "openai", "budgets": daily("0.02"), "prices": {"models": {"gpt-4o-mini": model}}},
        )
    )

    def call(number):
        body = CHAT | {
            "max_tokens": 1 + number * 37 % 900,
            "n": 1 + number % 3,
            "messages": [{"role": "user", "content": "word " * (number * 13 % 200)}],
        }
        return gateway.post(
            "/p/mock/v1/chat/completions",
            json=body,
            params={
                "completion_tokens": 1 + number * 17 % 900,
                "cached_tokens": number % 5,
                "latency_us": 2000,
            },
        )

    answers = in_parallel(16, 300, call)
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) + statuses.count(429) == 300
    assert statuses.count(200) > 20
    assert statuses.count(429) > 20
    assert sum(nano(answer.headers["Penstock-Cost"]) for answer in answers) == mock.billed()
    assert settled(gateway) == mock.billed() <= nano("0.02")
    assert gateway.metric(
        "external_api_credit_used_total", provider="mock", credit_type="actual"
    ) * 10**9 == (mock.billed())
    assert gateway.metric("external_api_credit_used_total", credit_type="estimated") == 0


@pytest.mark.parametrize("where", ["team", "consumer", "key", "route"])
def test_every_subject_has_budgets(start_gateway, mock, where):
    config = configuration(
        mock,
        {"prices": {"per_call_usd": "0.01"}},
        teams={"crew": {}, "others": {}},
        routes={"way": {"targets": [{"provider": "mock"}]}, "free": {"targets": [{"provider": "mock"}]}},
        consumers={"tester": {"team": "crew"}, "other": {"team": "others"}},
        keys={
            "tester-1": {"consumer": "tester", "hash": key_hash(KEY)},
            "other-1": {"consumer": "other", "hash": key_hash("pk_other")},
        },
    )
    place = {"team": ("teams", "crew"), "consumer": ("consumers", "tester"), "key": ("keys", "tester-1")}
    section, name = place.get(where, ("routes", "way"))
    config[section][name]["budgets"] = daily("0.05")
    gateway = start_gateway(config)
    answers = in_parallel(8, 20, lambda _: gateway.get("/r/way/anything"))
    assert [answer.status_code for answer in answers].count(200) == 5
    for answer in answers:
        if answer.status_code != 200:
            check_refusal(answer)
    # Everybody else goes on.
    if where == "route":
        assert gateway.get("/r/free/anything").status_code == 200
    else:
        with gateway.new_client("pk_other") as other:
            assert other.get("/r/way/anything").status_code == 200


def test_the_smallest_of_several_budgets_decides(start_gateway, mock):
    budgets = [
        {"window": DAILY, "limit_usd": "1"},
        {"window": "monthly", "limit_usd": "0.03", "time_zone": "Pacific/Auckland"},
    ]
    gateway = start_gateway(configuration(mock, {"budgets": budgets, "prices": {"per_call_usd": "0.01"}}))
    assert [gateway.get("/p/mock/anything").status_code for _ in range(4)] == [200, 200, 200, 429]
    budget = gateway.provider()["budget"]
    assert (budget["daily_spent_usd"], budget["monthly_spent_usd"]) == (0.03, 0.03)


def test_a_budget_that_warns_refuses_nothing(start_gateway, mock):
    provider = {"budgets": daily("0.01", mode="warn"), "prices": {"per_call_usd": "0.01"}}
    gateway = start_gateway(configuration(mock, provider))
    assert [gateway.get("/p/mock/anything").status_code for _ in range(3)] == [200] * 3
    assert settled(gateway) == 3 * CENT


def test_402_where_it_is_configured(start_gateway, mock):
    provider = {"budgets": daily("0.01"), "prices": {"per_call_usd": "0.01"}}
    gateway = start_gateway(configuration(mock, provider, budget_status=402))
    assert gateway.get("/p/mock/anything").status_code == 200
    refused = gateway.get("/p/mock/anything")
    assert refused.status_code == 402
    assert refused.json()["status"] == 402
    assert refused.headers["Penstock-Reason"] == "policy_budget_exceeded"


def test_a_call_larger_than_the_whole_budget_is_told_not_to_come_back(start_gateway, mock):
    provider = {"budgets": daily("0.01"), "prices": {"per_call_usd": "0.02"}}
    answer = start_gateway(configuration(mock, provider)).get("/p/mock/anything")
    assert answer.status_code == 429
    assert "Retry-After" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert mock.stats()["requests"] == 0


def test_a_provider_that_cannot_be_reached_costs_nothing(start_gateway, mock):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    provider = {
        "base_url": f"http://127.0.0.1:{port}",
        "budgets": daily("0.02"),
        "prices": {"per_call_usd": "0.01"},
        "circuit": {"min_calls": 1000},
    }
    gateway = start_gateway(configuration(mock, provider))
    for _ in range(5):
        answer = gateway.get("/p/mock/anything")
        assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")
        assert nano(answer.headers["Penstock-Cost"]) == 0
    assert settled(gateway) == 0


@pytest.mark.parametrize("charge", [True, False])
def test_an_attempt_cut_after_it_was_sent_is_charged_its_estimate(start_gateway, mock, charge):
    """The mock bills it too, as a provider that did the work does. `charge_unknown: false` trusts luck."""
    units = [{"name": "credits", "pointer": "/billing/credits", "usd_per_unit": "0.005", "max_per_call": 2}]
    mock.prices(credit_nano_usd=CENT // 2)
    gateway = start_gateway(
        configuration(mock, {"budgets": daily("0.05"), "prices": {"units": units}, "charge_unknown": charge})
    )
    answer = gateway.get("/p/mock/geocode?q=x&credits=1&cut_before_head=1")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_error")
    expected = CENT if charge else 0
    assert nano(answer.headers["Penstock-Cost"]) == settled(gateway) == expected
    assert mock.billed() == CENT // 2
    (line,) = gateway.calls(1, reason="provider_error")
    assert line.get("cost_estimated", False) is charge


def test_failures_of_the_provider_are_free_unless_told_otherwise(start_gateway, mock):
    prices = {"per_call_usd": "0.01"}
    providers = {
        "mock": upstream(mock, prices=prices, budgets=daily("1")),
        "strict": upstream(mock, prices=prices | {"charge_failures": True}, budgets=daily("1")),
    }
    gateway = start_gateway(configuration(mock, providers=providers))
    assert nano(gateway.get("/p/mock/status/404").headers["Penstock-Cost"]) == 0
    assert nano(gateway.get("/p/strict/status/404").headers["Penstock-Cost"]) == CENT
    assert (settled(gateway), settled(gateway, "strict")) == (0, CENT)


def test_a_call_without_a_price_is_refused_before_it_is_sent(start_gateway, mock):
    models = {"gpt-4o-mini": {"input_usd_per_million": "0.15", "output_usd_per_million": "0.6"}}
    gateway = start_gateway(configuration(mock, {"api": "openai", "prices": {"models": models}}))
    for body in [CHAT | {"model": "unknown"}, {"messages": []}, [1, 2]]:
        answer = gateway.post("/p/mock/v1/chat/completions", json=body)
        assert (answer.status_code, answer.headers["Penstock-Reason"]) == (400, "caller_invalid"), body
    assert gateway.chat(json={"model": "gpt-4o-mini-2024-07-18"}).status_code == 200
    assert mock.stats()["requests"] == 1


def test_spend_above_the_estimate_is_shown_as_overrun(start_gateway, mock):
    """A provider that ignores max_tokens: nothing can prevent it, but it is told."""
    mock.prices(output_nano_usd_per_token=600)
    models = {"gpt-4o-mini": {"input_usd_per_million": 0, "output_usd_per_million": "0.6"}}
    gateway = start_gateway(
        configuration(mock, {"api": "openai", "budgets": daily("1"), "prices": {"models": models}})
    )
    answer = gateway.chat(json={"max_tokens": 10}, params={"completion_tokens": 1000, "over_max": 1})
    assert nano(answer.headers["Penstock-Cost"]) == mock.billed() == 600_000
    assert gateway.metric("penstock_budget_overrun_usd_total", provider="mock") * 10**9 == 600_000 - 6_000
    assert settled(gateway) == 600_000


def test_a_budget_holds_while_calls_are_in_flight(start_gateway, mock):
    """Three calls of a cent are under way on a budget of three: a fourth is refused although nothing is spent."""
    released = []

    def answer(request, stream):
        until(lambda: released, 20)
        stream.send(ok())
        return True

    slow = Upstream(answer)
    try:
        provider = {
            "base_url": f"http://127.0.0.1:{slow.port}",
            "budgets": daily("0.03"),
            "prices": {"per_call_usd": "0.01"},
        }
        gateway = start_gateway(configuration(mock, provider))
        clients = [connect(gateway.port) for _ in range(3)]
        for client in clients:
            client.send(f"GET /p/mock/ HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n".encode())
        until(lambda: len(slow.requests) == 3)
        budget = gateway.provider()["budget"]
        assert (budget["daily_spent_usd"], budget["daily_held_usd"]) == (0, 0.03)
        check_refusal(gateway.get("/p/mock/"))
        released.append(True)
        assert [client.response().status for client in clients] == [200] * 3
        assert settled(gateway) == 3 * CENT
        for client in clients:
            client.close()
    finally:
        released.append(True)
        slow.close()
