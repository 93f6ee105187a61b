"""Limits: in no window of a limit's length do more attempts start than it allows (G4), and what is refused is
told when to come back. Limits of callers come with their headers."""

import re
import threading
import time

import pytest
from harness import CHAT, KEY, configuration, in_parallel, key_hash, until

SECOND = 10**9
# Here limits refuse; test_waiting.py is about those who wait for them.
NO_WAIT = {"wait": {"max": "0s"}}


def most_in_a_window(starts, length):
    """The most starts in any half-open window of that length; `starts` are sorted."""
    most = begin = 0
    for end in range(len(starts)):
        while starts[end] - starts[begin] >= length:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def hammer(gateway, seconds, threads, path="/p/mock/anything"):
    """Every thread calls as fast as it is answered, for so long; all answers."""
    end = time.monotonic() + seconds
    answers = []

    def work(_):
        with gateway.new_client() as client:
            while time.monotonic() < end:
                answers.append(client.get(path))

    in_parallel(threads, threads, work)
    return answers


def starts_at(mock):
    return sorted(entry["start_ns"] for entry in mock.log())


def check_refusal(answer, reason="policy_rate_limited"):
    assert answer.status_code == 429
    assert answer.headers["Penstock-Reason"] == answer.json()["reason"] == reason
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in answer.headers


def test_500_calls_at_once_against_60_a_minute(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "60/minute"}))
    began = time.monotonic()
    answers = in_parallel(16, 500, lambda _: gateway.get("/p/mock/anything"))
    took = time.monotonic() - began
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 440
    assert mock.stats()["requests"] == 60
    for answer in refused:
        check_refusal(answer)
        assert 60 - took - 1 <= int(answer.headers["Retry-After"]) <= 61
    assert gateway.metric("penstock_admissions_total", decision="admit") == 60
    assert gateway.metric("penstock_admissions_total", decision="refuse", reason="policy_rate_limited") == 440
    requests = gateway.provider()["requests"]
    assert (requests["requests_this_minute"], requests["minute_limit"]) == (60, 60)


def test_no_window_of_5_s_has_more_than_20_starts(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "20/5s"} | NO_WAIT, log={"calls": "none"}))
    answers = hammer(gateway, seconds=17, threads=16)
    starts = starts_at(mock)
    # Measured at the provider: what was slow on its way may have made a window look a little shorter.
    assert most_in_a_window(starts, 5 * SECOND - SECOND // 20) <= 20
    assert len(starts) >= 60  # the limit is used, not only kept: 20 at 0, 5, 10 and 15 s
    assert len(answers) > 10 * len(starts)
    for answer in answers:
        if answer.status_code != 200:
            check_refusal(answer)
            assert 1 <= int(answer.headers["Retry-After"]) <= 6


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_minute_has_more_than_60_starts_in_three_minutes(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "60/minute"} | NO_WAIT, log={"calls": "none"}))
    hammer(gateway, seconds=185, threads=8)
    starts = starts_at(mock)
    assert most_in_a_window(starts, 60 * SECOND - SECOND // 20) <= 60
    assert len(starts) >= 200


def test_retry_after_is_the_truth(start_gateway, mock):
    """Not too early, which the provider would feel, and not a second more than rounding needs."""
    gateway = start_gateway(configuration(mock, {"limits": "1/2s"} | NO_WAIT))
    assert gateway.get("/p/mock/anything").status_code == 200
    told = None
    began = time.monotonic()
    while (answer := gateway.get("/p/mock/anything")).status_code == 429:
        told = told or int(answer.headers["Retry-After"])
    waited = time.monotonic() - began
    assert told - 1 <= waited <= told + 0.5
    first, second = starts_at(mock)
    assert second - first >= 2 * SECOND - SECOND // 20


@pytest.mark.parametrize("where", ["team", "consumer", "key", "route", "endpoint"])
def test_every_subject_has_limits(start_gateway, mock, where):
    config = configuration(
        mock,
        {"endpoints": [{"name": "narrow", "path": "/anything/narrow/*"}]},
        teams={"crew": {}},
        routes={"way": {"targets": [{"provider": "mock"}]}},
        consumers={"tester": {"team": "crew"}, "other": {}},
        keys={
            "tester-1": {"consumer": "tester", "hash": key_hash(KEY)},
            "other-1": {"consumer": "other", "hash": key_hash("pk_other")},
        },
    )
    place = {
        "team": config["teams"]["crew"],
        "consumer": config["consumers"]["tester"],
        "key": config["keys"]["tester-1"],
        "route": config["routes"]["way"],
        "endpoint": config["providers"]["mock"]["endpoints"][0],
    }
    place[where]["limits"] = ["3/minute", "100/hour"]
    gateway = start_gateway(config)
    answers = [gateway.get("/r/way/anything/narrow/x") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    check_refusal(answers[-1])
    with gateway.new_client("pk_other") as other:
        assert other.get("/p/mock/anything").status_code == 200


def test_limits_of_tokens_hold_the_bound_and_keep_what_was_used(start_gateway, mock):
    """Each chat may use up to 100 tokens and its input's bound, and uses 44: more follow than fit at their bound."""
    models = {"gpt-4o-mini": {"input_usd_per_million": 1, "output_usd_per_million": 1}}
    gateway = start_gateway(
        configuration(mock, {"api": "openai", "limits": "1000 tokens/minute", "prices": {"models": models}})
    )
    statuses = [gateway.chat(json={"max_tokens": 100}).status_code for _ in range(30)]
    passed = statuses.count(200)
    assert statuses == [200] * passed + [429] * (30 - passed)
    used = mock.bill()["prompt_tokens"] + mock.bill()["completion_tokens"]
    assert used == 44 * passed
    assert 600 < used <= 1000
    (limit,) = [value for (name, _), value in gateway.metrics().items() if name.endswith("limit_remaining")]
    assert limit in (1000, 1000 - used)  # it is refreshed every 15 s
    too_large = gateway.chat(json={"max_tokens": 5000})
    assert too_large.status_code == 429
    assert "Retry-After" not in too_large.headers
    assert too_large.headers["x-should-retry"] == "false"


def test_concurrency_is_a_bound(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"concurrency": 3} | NO_WAIT))
    answers = in_parallel(16, 200, lambda _: gateway.get("/p/mock/anything?latency_us=4000"))
    assert mock.stats()["max_in_flight"] == 3
    passed = [answer for answer in answers if answer.status_code == 200]
    assert 3 <= len(passed) < 200
    check_refusal(next(answer for answer in answers if answer.status_code != 200))
    assert gateway.get("/p/mock/anything").status_code == 200
    until(lambda: gateway.provider()["in_flight"] == 0)


# --- limits of callers ---

FIELDS = re.compile(r'"caller";r=(\d+);t=(\d+)')


def limit_fields(answer):
    """(remaining, seconds until there is more), after the two families of headers have been compared."""
    remaining, seconds = map(int, FIELDS.fullmatch(answer.headers["RateLimit"]).groups())
    assert int(answer.headers["X-RateLimit-Remaining"]) == remaining
    assert abs(int(answer.headers["X-RateLimit-Reset"]) - time.time() - seconds) <= 2
    return remaining, seconds


def test_100_a_minute_where_nothing_is_configured(start_gateway, mock):
    config = configuration(mock)
    del config["inbound"]
    gateway = start_gateway(config)
    for left in range(99, -1, -1):
        answer = gateway.get("/p/mock/anything")
        assert answer.status_code == 200
        remaining, seconds = limit_fields(answer)
        assert remaining == left
        assert 0 <= seconds <= 61  # windows are counted in grains of a fraction of their length
        assert answer.headers["X-RateLimit-Limit"] == "100"
        assert answer.headers["RateLimit-Policy"] == '"caller";q=100;w=60'
    refused = gateway.get("/p/mock/anything")
    check_refusal(refused, "caller_rate_limited")
    assert limit_fields(refused) == (0, int(refused.headers["Retry-After"]))
    assert mock.stats()["requests"] == 100
    assert gateway.health("/health")["status"] == "healthy"  # exempt


def test_one_key_is_limited_and_another_is_not(start_gateway, mock):
    config = configuration(mock, inbound={"limit": "3/minute"})
    config["keys"]["tester-2"] = {"consumer": "tester", "hash": key_hash("pk_second")}
    gateway = start_gateway(config)
    assert [gateway.get("/p/mock/anything").status_code for _ in range(4)] == [200, 200, 200, 429]
    with gateway.new_client("pk_second") as second:
        assert second.get("/p/mock/anything").status_code == 200


def test_overrides_count_by_themselves(start_gateway, mock):
    overrides = [
        {"path": "/p/mock/anything/few", "methods": ["GET"], "limit": "1/minute"},
        {"path": "/p/mock/anything/**", "limit": "2/minute"},
    ]
    gateway = start_gateway(configuration(mock, inbound={"limit": "3/minute", "overrides": overrides}))

    def statuses(path, count, method="GET"):
        return [gateway.client.request(method, "/p/mock" + path).status_code for _ in range(count)]

    assert statuses("/anything/few", 2) == [200, 429]
    assert statuses("/anything/few", 1, "PUT") == [200]  # falls to the next one
    assert statuses("/anything/many", 2) == [200, 429]
    assert statuses("/bytes/1", 4) == [200, 200, 200, 429]


def test_exempt_paths_are_not_counted(start_gateway, mock):
    inbound = {"limit": "1/minute", "exempt": ["/p/mock/status/*"]}
    gateway = start_gateway(configuration(mock, inbound=inbound))
    for _ in range(5):
        answer = gateway.get("/p/mock/status/200")
        assert answer.status_code == 200
        assert "X-RateLimit-Limit" not in answer.headers
    assert [gateway.get("/p/mock/anything").status_code for _ in range(2)] == [200, 429]


def test_a_providers_own_limit_headers_do_not_stand_beside_ours(start_gateway, mock):
    mock.limits(requests_per_minute=1000, style="github")
    answer = start_gateway(configuration(mock)).get("/p/mock/anything")
    assert answer.headers.get_list("X-RateLimit-Limit") == ["1000000"]


def test_without_keys_addresses_are_limited_as_trusted_proxies_tell(start_gateway, mock):
    config = configuration(
        mock, anonymous=True, inbound={"limit": "2/minute"}, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]
    )
    gateway = start_gateway(config)
    with gateway.new_client(key=None) as client:

        def statuses(forwarded, count=3):
            headers = {"X-Forwarded-For": forwarded} if forwarded else {}
            return [client.get("/p/mock/anything", headers=headers).status_code for _ in range(count)]

        assert statuses("203.0.113.7") == [200, 200, 429]
        assert statuses("203.0.113.8", 1) == [200]
        # A client may write what it likes on the left: the first address that is not ours counts.
        assert statuses("1.2.3.4, 203.0.113.7, 10.1.1.1", 1) == [429]
        assert statuses("203.0.113.9, 203.0.113.7", 1) == [429]
        assert statuses("", 3) == [200, 200, 429]  # 127.0.0.1 itself
    seen = mock.log()
    assert len(seen) == 5


def test_without_trusted_proxies_nobody_is_believed(start_gateway, mock):
    gateway = start_gateway(configuration(mock, anonymous=True, inbound={"limit": "2/minute"}))
    with gateway.new_client(key=None) as client:
        statuses = [
            client.get("/p/mock/anything", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code
            for n in range(4)
        ]
    assert statuses == [200, 200, 429, 429]


def test_unknown_keys_and_paths_are_limited_too(start_gateway, mock):
    """Guessing is not free: paths that lead nowhere count against the address."""
    gateway = start_gateway(configuration(mock, inbound={"limit": "3/minute"}))
    with gateway.new_client(key=None) as client:
        assert [client.get(f"/nowhere/{n}").status_code for n in range(5)] == [404] * 3 + [429] * 2
    assert [gateway.get("/p/nobody/x").status_code for _ in range(5)] == [404] * 3 + [429] * 2


def test_counts_are_exact_with_all_workers_at_once(start_gateway, mock):
    gateway = start_gateway(configuration(mock, inbound={"limit": "150/minute"}))
    counts = threading.local()

    def call(_):
        if not hasattr(counts, "client"):
            counts.client = gateway.new_client()
        return counts.client.post("/p/mock/anything", json=CHAT).status_code

    statuses = in_parallel(24, 400, call)
    assert (statuses.count(200), statuses.count(429)) == (150, 250)
