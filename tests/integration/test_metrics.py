"""What /metrics and /health say is what was done, and callers cannot make series."""

import json
import shutil
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest
import yaml
from harness import CHAT, HELLO, ROOT, configuration, in_parallel, nano, until, upstream

CATALOGUE = yaml.safe_load((ROOT / "contracts/metrics.yaml").read_text())
REASONS = yaml.safe_load((ROOT / "contracts/reasons.yaml").read_text())["reasons"]
PRICES = {"input_nano_usd_per_token": 150, "output_nano_usd_per_token": 600}
MODEL = {"input_usd_per_million": "0.15", "output_usd_per_million": "0.6"}


def scrape(gateway):
    answer = httpx.get(gateway.url + "/metrics", trust_env=False)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return answer.text


@pytest.fixture
def busy(start_gateway, mock):
    """A gateway on which everything has happened: successes, failures, refusals, streams, retries, fallbacks."""
    mock.prices(**PRICES)
    providers = {
        "mock": upstream(
            mock,
            api="openai",
            limits=["10000/minute", "10000000 tokens/minute"],
            budgets=[{"window": "daily", "limit_usd": 1}, {"window": "monthly", "limit_usd": 10}],
            prices={"models": {"gpt-4o-mini": MODEL}, "default_model": MODEL},
            endpoints=[{"name": "chat", "path": "/v1/chat/completions"}],
        ),
        "sick": upstream(mock, circuit={"min_calls": 2}, retry={"max_attempts": 2, "backoff": "1ms"}),
        "poor": upstream(
            mock, prices={"per_call_usd": "0.01"}, budgets=[{"window": "daily", "limit_usd": "0.01"}]
        ),
    }
    routes = {"way": {"targets": [{"provider": "sick"}, {"provider": "poor"}]}}
    gateway = start_gateway(configuration(mock, providers=providers, routes=routes))
    for _ in range(3):
        assert gateway.chat().status_code == 200
        gateway.chat(json={"stream": True})
        gateway.get("/r/way/anything?status=503")
        gateway.get("/p/poor/anything")
        gateway.get("/nowhere")
        gateway.client.request("BREW", "/p/mock/anything")
    with gateway.new_client("pk_wrong") as client:
        assert client.get("/p/mock/anything").status_code == 401
    return gateway


def test_promtool_has_nothing_to_say(busy):
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: make setup"
    result = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(busy),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_families_labels_and_values_are_those_of_the_catalogue(busy):
    text = scrape(busy)
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    assert types == {name: family["type"] for name, family in CATALOGUE["metrics"].items()}
    allowed = {
        name: set(found["values"]) for name, found in CATALOGUE["label_sets"].items() if "from" not in found
    }
    allowed["reason"] = {*REASONS, ""}
    allowed["provider"] = {"mock", "sick", "poor"}
    allowed["endpoint"] = {"chat", "other"}
    allowed["model"] = {"gpt-4o-mini", "other"}
    for (name, pairs), value in busy.metrics().items():
        family = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.removesuffix(suffix) in CATALOGUE["metrics"] and name not in CATALOGUE["metrics"]:
                family = name.removesuffix(suffix)
        labels = dict(pairs)
        bucket = labels.pop("le", None)
        assert (bucket is not None) == name.endswith("_bucket")
        sets = CATALOGUE["metrics"][family]["labels"]
        assert set(labels) == set(sets), name
        for label, text_value in labels.items():
            if sets[label] in allowed:
                assert text_value in allowed[sets[label]], (name, label, text_value)
        assert value >= 0, name


def test_counts_agree_with_what_was_done(start_gateway, mock):
    mock.prices(**PRICES)
    provider = {
        "api": "openai",
        "limits": "1000/minute",
        "budgets": [{"window": "daily", "limit_usd": "0.5"}],
        "prices": {"models": {"gpt-4o-mini": MODEL}},
        "endpoints": [{"name": "chat", "path": "/v1/chat/completions", "methods": ["POST"]}],
    }
    gateway = start_gateway(configuration(mock, provider))

    def call(number):
        body = {"max_tokens": 1 + number, "messages": [{"role": "user", "content": "a" * number}]}
        return gateway.chat(json=body, params={"status": 500 if number % 10 == 9 else 200})

    answers = in_parallel(8, 100, call)
    assert [answer.status_code for answer in answers].count(200) == 90
    assert gateway.get("/p/mock/anything").status_code == 200
    bill = mock.bill()

    def metric(name, **labels):
        return gateway.metric(name, provider="mock", **labels)

    assert metric("external_api_calls_total", endpoint="chat", status="200") == 90
    assert metric("external_api_calls_total", endpoint="chat", status="500") == 10
    assert metric("external_api_calls_total", endpoint="other", status="200") == 1
    assert metric("external_api_duration_seconds_count", endpoint="chat") == 100
    assert metric("external_api_credit_used_total", credit_type="actual") * 10**9 == bill["nano_usd"]
    assert sum(nano(answer.headers["Penstock-Cost"]) for answer in answers) == bill["nano_usd"]
    assert metric("llm_tokens_total", model="gpt-4o-mini", token_type="input") == bill["prompt_tokens"]
    assert metric("llm_tokens_total", model="gpt-4o-mini", token_type="output") == bill["completion_tokens"]
    assert metric("penstock_admissions_total", decision="admit") == 101
    assert gateway.metric("penstock_admissions_total", decision="refuse") == 0
    # Recorded after the answer: the last ones may be on their way.
    until(lambda: gateway.metric("http_request_duration_seconds_count", endpoint="/p/mock/chat") == 100)
    assert gateway.metric("http_request_duration_seconds_count", status_code="500", method="POST") == 10
    until(lambda: gateway.metric("penstock_gateway_overhead_seconds_count") == 101)
    assert gateway.metric("penstock_log_lines_dropped_total") == 0
    lines = gateway.calls(101)
    assert sum(Decimal(str(line["cost_usd"])) for line in lines) * 10**9 == bill["nano_usd"]
    assert len({line["call"] for line in lines}) == 101

    health = gateway.health()
    shown = health["providers"]["mock"]
    assert shown["provider_id"] == "mock"
    assert shown["status"] == "healthy"
    assert health["status"] == "healthy"
    assert round(shown["budget"]["daily_spent_usd"] * 10**9) == bill["nano_usd"]
    assert (shown["budget"]["daily_held_usd"], shown["budget"]["daily_limit_usd"]) == (0, 0.5)
    assert shown["requests"] == {
        "requests_this_minute": 101,
        "minute_limit": 1000,
        "daily_count": 101,
        "daily_limit": None,
    }
    assert shown["circuit_breaker"] == {"state": "closed", "failure_count": 10, "can_request": True}
    assert 0 < shown["latency"]["p50_ms"] <= shown["latency"]["p95_ms"]
    assert shown["error_ratio"] == pytest.approx(10 / 101, abs=1e-3)
    assert shown["waiting"] == 0
    seconds = (datetime.now(UTC) - datetime.fromisoformat(health["timestamp"])).total_seconds()
    assert -2 < seconds < 10
    mock_calls = mock.stats()["requests"]
    assert mock_calls == 101  # health asks nobody


def test_1000_paths_models_and_keys_make_no_series(start_gateway, mock):
    provider = {"api": "openai", "prices": {"models": {"gpt-4o-mini": MODEL}, "default_model": MODEL}}
    gateway = start_gateway(configuration(mock, provider, log={"calls": "none"}, anonymous=True))

    def round_of(name):
        gateway.get(f"/p/mock/anything/{name}")
        gateway.post(
            f"/p/mock/v1/chat/completions?x={name}", json=CHAT | {"model": f"model-{name}", "user": name}
        )
        gateway.get(f"/p/{name}/x")
        gateway.get(f"/{name}")
        gateway.client.request(f"M{str(name)[:20]}", "/p/mock/anything")
        gateway.get("/p/mock/anything", headers={"Authorization": f"Bearer pk_{name}"})
        gateway.get("/p/mock/anything", headers={"Penstock-Tag": f"tag-{name}", "Host": f"{name}.example"})

    def series():
        return {(name, labels) for name, labels in gateway.metrics() if "le" not in dict(labels)}

    round_of("first")
    until(lambda: gateway.metric("penstock_gateway_overhead_seconds_count") >= 7)
    before = series()
    in_parallel(8, 1000, round_of)
    after = series()
    assert after == before
    assert gateway.metric("llm_tokens_total", model="other") > 0


def test_gauges_follow_the_limits_and_budgets(start_gateway, mock):
    provider = {
        "limits": ["100/minute", "7/10s"],
        "budgets": [{"window": "daily", "limit_usd": "0.04"}],
        "prices": {"per_call_usd": "0.01"},
    }
    gateway = start_gateway(configuration(mock, provider))

    def remaining(limit):
        return gateway.metric("external_api_rate_limit_remaining", provider="mock", limit_type=limit)

    assert (remaining("calls/minute"), remaining("calls/10s")) == (100, 7)
    assert gateway.metric("external_api_budget_ratio", budget_type="daily") == 0
    for _ in range(3):
        assert gateway.get("/p/mock/anything").status_code == 200
    gateway.reload(configuration(mock, provider))  # does not wait for the 15 s
    assert (remaining("calls/minute"), remaining("calls/10s")) == (97, 4)
    assert gateway.metric("external_api_budget_ratio", provider="mock", budget_type="daily") == Decimal(
        "0.75"
    )
    assert gateway.provider()["status"] == "healthy"


def test_health_paths(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    assert gateway.health("/health")["status"] == "healthy"
    assert gateway.health("/health/live") == {"status": "alive"}
    assert gateway.health("/health/ready") == {"status": "ready"}
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/health/providers",
        "/health/redis",
        "/health/database",
    ]:
        for prefix in ("", "/api/v1"):
            answer = httpx.get(gateway.url + prefix + path, trust_env=False)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/json"
            json.loads(answer.text)
            head = httpx.head(gateway.url + prefix + path, trust_env=False)
            assert (head.status_code, head.content) == (200, b"")
    assert httpx.get(gateway.url + "/health/nothing", trust_env=False).status_code == 404
    assert httpx.post(gateway.url + "/health", trust_env=False).status_code == 404


def test_connections_are_counted(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    for _ in range(5):
        gateway.chat(json={"messages": HELLO})
    opened = gateway.metric("penstock_connections_opened_total", side="upstream")
    assert 1 <= opened <= 2  # kept; one for each worker
    assert gateway.metric("penstock_connections", side="upstream") == opened
    with gateway.connect(), gateway.connect():
        until(
            lambda: gateway.metric("penstock_connections", side="downstream") == 4
        )  # the client's, and this one
    until(lambda: gateway.metric("penstock_connections", side="downstream") == 2)
