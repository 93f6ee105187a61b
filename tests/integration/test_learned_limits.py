"""Limits that only the provider knows: learned from its answers, so that it need not refuse."""

import threading
import time

import harness
import pytest
from harness import in_parallel, until, upstream

STYLES = ["openai", "anthropic", "github"]


def configuration(mock, provider=None, **top):
    """The usual one, where nobody waits: these tests are about what is refused."""
    return harness.configuration(mock, {"wait": {"default": "0s"}} | (provider or {}), **top)


class Callers:
    """Threads that call again and again; refused here, they wait for what Retry-After says, at most a second."""

    def __init__(self, gateway, path, threads=8):
        self.gateway = gateway
        self.path = path
        self.threads = threads

    def run(self, seconds, pace=0.0):
        """The reasons of all answers, "" for good ones. `pace`: least time between two calls of a thread."""
        end = time.monotonic() + seconds
        reasons = [[] for _ in range(self.threads)]
        done = threading.Event()

        def call(number):
            with self.gateway.new_client() as client:
                while time.monotonic() < end:
                    began = time.monotonic()
                    answer = client.get(self.path)
                    reason = answer.headers.get("Penstock-Reason", "")
                    assert answer.status_code == (429 if reason else 200), answer.text
                    reasons[number].append(reason)
                    # Callers come back a little early and apart from each other: the gateway must hold them.
                    done.wait(max(0.0, began + pace - time.monotonic()) + (0.02 if reason else 0))

        in_parallel(self.threads, self.threads, call)
        return [reason for each in reasons for reason in each]


def refused_upstream(mock):
    statuses = [entry["status"] for entry in mock.log()]
    return statuses.count(429) + statuses.count(403), len(statuses)


@pytest.mark.parametrize("style", STYLES)
def test_a_limit_in_the_answers_is_kept_under_overload(start_gateway, mock, style):
    """More callers than the limit has room for: next to nothing of what is sent on is refused there."""
    mock.limits(requests_per_minute=1200, style=style)
    gateway = start_gateway(configuration(mock))
    reasons = Callers(gateway, "/p/mock/anything").run(5)
    refused, sent = refused_upstream(mock)
    assert sent >= 0.9 * 1200, sent  # the bucket is full at first; github's comes back at its reset only
    assert refused <= 0.01 * sent, (refused, sent)
    assert reasons.count("policy_rate_limited") > 50  # there was more to do


def test_at_95_percent_of_the_limit_next_to_nothing_is_refused(start_gateway, mock):
    mock.limits(requests_per_minute=3000, style="openai")
    # The bucket is emptied first: else its minute's worth would hide everything.
    in_parallel(8, 3100, lambda _: mock.call("GET", "/anything", authorization="Bearer sk-provider-7777"))
    before = len(mock.log())
    gateway = start_gateway(configuration(mock))
    reasons = Callers(gateway, "/p/mock/anything", threads=4).run(6, pace=4 / (50 * 0.95))
    log = mock.log()[before:]
    refused = sum(entry["status"] == 429 for entry in log)
    assert len(log) > 0.7 * 6 * 50
    # A cold start knows nothing: the first call of each thread may find the bucket empty.
    assert refused <= 4 + 0.01 * len(log), (refused, len(log))
    assert reasons.count("") > 0.7 * 6 * 50


def test_a_limit_that_nobody_tells_is_found(start_gateway, mock):
    mock.limits(requests_per_minute=1200, style="silent")
    in_parallel(8, 1250, lambda _: mock.call("GET", "/anything", authorization="Bearer sk-provider-7777"))
    gateway = start_gateway(configuration(mock, {"adaptive_concurrency": "never"}))
    callers = Callers(gateway, "/p/mock/anything")
    callers.run(6)
    before = len(mock.log())
    callers.run(6)
    log = mock.log()[before:]
    refused = sum(entry["status"] == 429 for entry in log)
    assert refused <= 0.10 * len(log), (refused, len(log))
    assert len(log) - refused >= 0.5 * 6 * 20, (refused, len(log))
    learned = gateway.provider()["learned_limits"]["requests"]["limit"]
    assert 600 <= learned <= 1800


def test_the_answers_never_lift_what_is_configured(start_gateway, mock):
    mock.limits(requests_per_minute=100_000, style="openai")
    gateway = start_gateway(configuration(mock, {"limits": "5/minute"}))
    statuses = [gateway.get("/p/mock/anything").status_code for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3
    assert len(mock.log()) == 5


def test_a_refusal_here_says_when_to_come_back(start_gateway, mock):
    mock.limits(requests_per_minute=2, style="openai")
    gateway = start_gateway(configuration(mock))
    assert [gateway.get("/p/mock/anything").status_code for _ in range(2)] == [200, 200]
    answer = gateway.get("/p/mock/anything")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (429, "policy_rate_limited")
    assert 20 <= int(answer.headers["Retry-After"]) <= 31  # one in 30 s
    assert len(mock.log()) == 2


def test_what_was_learned_is_shown(start_gateway, mock):
    mock.limits(requests_per_minute=50, tokens_per_minute=9000, style="openai")
    gateway = start_gateway(configuration(mock))
    gateway.chat()
    learned = gateway.provider()["learned_limits"]
    assert learned["requests"]["limit"] == 50
    assert learned["tokens"]["limit"] == 9000
    assert gateway.provider()["concurrency_limit"] is None
    until(lambda: gateway.metric("penstock_learned_limit", provider="mock", limit_type="tokens") == 9000, 20)


def test_models_are_limited_apart(start_gateway, mock):
    model = {"input_usd_per_million": 1, "output_usd_per_million": 1, "max_output_tokens": 64}
    prices = {"models": {"gpt-4o": model, "gpt-4o-mini": model}}
    gateway = start_gateway(configuration(mock, {"api": "openai", "prices": prices}))
    mock.script(
        match="/v1/chat", times=1, status=429, header="x-ratelimit-remaining-requests: 0", retry_after="30"
    )
    assert gateway.chat(json={"model": "gpt-4o"}).headers["Penstock-Reason"] == "provider_rate_limited"
    assert gateway.chat(json={"model": "gpt-4o"}).headers["Penstock-Reason"] == "policy_rate_limited"
    assert gateway.chat(json={"model": "gpt-4o-mini"}).status_code == 200


def test_learning_can_be_turned_off(start_gateway, mock):
    mock.limits(requests_per_minute=2, style="openai")
    gateway = start_gateway(configuration(mock, {"learn_limits": False, "adaptive_concurrency": "never"}))
    reasons = [gateway.get("/p/mock/anything").headers.get("Penstock-Reason") for _ in range(4)]
    # The Retry-After of the first refusal still holds.
    assert reasons == [None, None, "provider_rate_limited", "policy_rate_limited"]
    assert gateway.provider()["learned_limits"] == {}


def test_a_used_up_account_is_not_tried_again(start_gateway, mock):
    mock.script(status=429, error_code="insufficient_quota", retry_after="0")
    retry = {"max_attempts": 3, "unsafe_methods": True, "backoff": "1ms"}
    gateway = start_gateway(configuration(mock, {"api": "openai", "retry": retry}))
    answers = [gateway.chat() for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.headers["Penstock-Reason"]) == (429, "provider_quota_exhausted")
        assert answer.json() == mock.chat()[2]  # as the provider said it
    assert [line["reason"] for line in gateway.calls(2)] == ["provider_quota_exhausted"] * 2
    assert len(mock.log()) == 4  # two, and the two of this test


def test_the_body_of_a_refusal_passes_unchanged(start_gateway, mock):
    """It is looked at, whatever its length and framing."""
    mock.script(match="/bytes", status=429)
    gateway = start_gateway(configuration(mock))
    for path in ["/bytes/10", "/chunked/50000", "/bytes/200000", "/status/429"]:
        mock.script(match=path, status=429, retry_after="0")
        answer = gateway.get(f"/p/mock{path}")
        assert answer.status_code == 429
        if answer.headers["Penstock-Reason"] == "provider_rate_limited":
            assert answer.content == mock.call("GET", path)[2] or answer.json() == mock.call("GET", path)[2]


def test_an_overloaded_provider_gets_less_at_once(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    mock.script(times=40, status=529, latency_us=200_000)

    def call(_):
        return gateway.get("/p/mock/anything?latency_us=200000").status_code

    in_parallel(24, 24, call)
    limit = gateway.provider()["concurrency_limit"]
    assert 10 <= limit <= 22
    in_parallel(24, 48, call)
    assert mock.stats()["max_in_flight"] <= 24
    until(lambda: gateway.metric("penstock_concurrency_limit", provider="mock") > 0, 20)


def test_a_configured_concurrency_stands(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"concurrency": 3}))
    assert gateway.provider()["concurrency_limit"] == 3
    providers = {"mock": upstream(mock, adaptive_concurrency="always", concurrency=3)}
    assert start_gateway(configuration(mock, providers=providers)).provider()["concurrency_limit"] == 3
