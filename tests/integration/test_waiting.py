"""The waiting line (G5): what cannot start now waits its turn by lane, consumer and deadline, starts in time or
is refused, and the provider never sees more than its limit."""

import contextlib
import threading
import time

import pytest
from harness import KEY, configuration, in_parallel, key_hash, until, upstream
from test_limits import SECOND, most_in_a_window, starts_at

PATH = "/p/mock/anything"
OTHER = "pk_other_consumer"


def wait(text, lane=None, **more):
    return {"Penstock-Wait": text} | ({"Penstock-Lane": lane} if lane else {}) | more


def waited_ms(answer):
    return int(answer.headers["Penstock-Waited"].removesuffix("ms"))


def waiting(gateway):
    return gateway.provider()["waiting"]


def check_refusal(answer, status, reason):
    assert (answer.status_code, answer.headers.get("Penstock-Reason")) == (status, reason), answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in answer.headers


class Calls:
    """Calls that run on threads of their own; each enters the line before the next one is made."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.threads = []
        self.answers = {}

    def start(self, name, path=None, key=KEY, headers=None):
        def work():
            with self.gateway.new_client(key, timeout=60) as client:
                self.answers[name] = client.get(path or f"{PATH}/{name}", headers=headers or {})

        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)

    def line_up(self, name, **options):
        before = waiting(self.gateway)
        self.start(name, **options)
        until(lambda: waiting(self.gateway) == before + 1)

    def join(self):
        for thread in self.threads:
            thread.join()
        return self.answers


@contextlib.contextmanager
def busy(gateway, mock, milliseconds=60_000):
    """The one place of `concurrency: 1` is taken until the block ends."""
    calls = Calls(gateway)
    in_flight = mock.stats()["requests"]
    sock = gateway.connect()
    with sock:
        request = f"GET /p/mock/drip/{milliseconds}?gap_us=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        sock.sendall(request.encode())
        until(lambda: mock.stats()["requests"] == in_flight + 1)
        yield calls
    # Hung up: on_disconnect: cancel frees the place.


ONE_PLACE = {"concurrency": 1, "on_disconnect": "cancel"}


def order(mock):
    return [entry["path"].rsplit("/", 1)[1] for entry in mock.log() if "/anything/" in entry["path"]]


def test_60_calls_at_once_against_20_in_5_s_all_succeed(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "20/5s"}))
    began = time.monotonic()
    answers = in_parallel(60, 60, lambda n: gateway.get(f"{PATH}/{n}", headers=wait("30s"), timeout=60))
    took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [200] * 60
    starts = starts_at(mock)
    assert len(starts) == 60
    assert most_in_a_window(starts, 5 * SECOND - SECOND // 20) <= 20
    assert 10 <= took <= 14  # the limit is used up, not only kept
    waits = sorted(waited_ms(answer) for answer in answers)
    assert waits[19] < 1_000 < 4_000 < waits[20] <= waits[39] < 7_000 < 9_000 < waits[40]
    assert not any(name.lower().startswith("penstock-") for name in answers[0].json()["headers"])
    assert gateway.metric("penstock_admissions_total", decision="admit") == 60
    assert gateway.metric("penstock_admissions_total", decision="wait", reason="policy_rate_limited") == 40
    assert gateway.metric("penstock_admissions_total", decision="refuse") == 0
    assert gateway.metric("penstock_queue_wait_seconds_count", provider="mock", lane="standard") == 40
    assert gateway.metric("penstock_queue_depth", provider="mock") == 0
    assert len([line for line in gateway.calls(60) if line.get("waited_ms", 0) > 4_000]) == 40


@pytest.mark.long
@pytest.mark.timeout(300)
def test_300_calls_at_once_against_a_true_bucket_of_60_a_minute(start_gateway, mock):
    """What can start within 3 minutes does; for the others that is said at once. The provider refuses nobody."""
    mock.limits(requests_per_minute=60)
    gateway = start_gateway(configuration(mock, {"limits": "60/minute"}))
    answers = in_parallel(300, 300, lambda n: gateway.get(f"{PATH}/{n}", headers=wait("3m"), timeout=240))
    passed = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    waits = sorted(waited_ms(answer) / 1000 for answer in passed)
    print(f"\n{len(passed)} passed, {len(refused)} refused; waits in s: ", end="")
    print(", ".join(f"{waits[n]:.1f}" for n in range(0, len(waits), 15)), f"last {waits[-1]:.1f}")
    print("Retry-After of the refused:", sorted({answer.headers["Retry-After"] for answer in refused}))
    assert len(passed) == 180  # 60 at once, and in two windows more
    assert all("provider" not in answer.headers["Penstock-Reason"] for answer in refused)
    assert all(waited_ms(answer) < 180_000 for answer in passed)
    assert most_in_a_window(starts_at(mock), 60 * SECOND - SECOND // 20) <= 60
    assert {entry["status"] for entry in mock.log()} == {200}
    for answer in refused:
        check_refusal(answer, 503, "policy_deadline_exceeded")
    # The fourth window opens about when 3 minutes are over: the estimate, a lower bound, may let some hope.
    at_once = [answer for answer in refused if waited_ms(answer) < 5_000]
    print(f"{len(at_once)} of them told at once")
    assert len(at_once) >= 60


def test_lanes_start_8_to_4_to_1_and_none_starves(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE))
    with busy(gateway, mock) as calls:
        for lane in ("batch", "standard", "interactive"):
            for number in range(9):
                calls.line_up(f"{lane}-{number}", headers=wait("50s", lane))
        depths = {
            lane: gateway.metric("penstock_queue_depth", provider="mock", lane=lane)
            for lane in ("interactive", "standard", "batch")
        }
        assert depths == {"interactive": 9, "standard": 9, "batch": 9}
    answers = calls.join()
    assert {answer.status_code for answer in answers.values()} == {200}
    lanes = [name.split("-")[0] for name in order(mock)]
    round_of_all = ["interactive"] * 8 + ["standard"] * 4 + ["batch"]
    assert lanes == round_of_all + ["interactive"] + ["standard"] * 4 + ["batch", "standard"] + ["batch"] * 7
    assert mock.stats()["max_in_flight"] <= 2  # to the provider a call runs until its answer is sent


def test_the_earliest_deadline_goes_first_and_arrival_decides_between_equals(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE))
    with busy(gateway, mock) as calls:
        for name, patience in [("late", "50s"), ("soon", "20s"), ("sooner", "15s"), ("last", "60s")]:
            calls.line_up(name, headers=wait(patience))
    assert {answer.status_code for answer in calls.join().values()} == {200}
    assert order(mock) == ["sooner", "soon", "late", "last"]


def two_consumers(mock, provider, **tester):
    return configuration(
        mock,
        provider,
        consumers={"tester": tester, "other": {}},
        keys={"other-1": {"consumer": "other", "hash": key_hash(OTHER)}},
    )


def test_consumers_take_turns(start_gateway, mock):
    gateway = start_gateway(two_consumers(mock, ONE_PLACE))
    with busy(gateway, mock) as calls:
        for number in range(6):
            calls.line_up(f"many-{number}", headers=wait("40s"))
        for number in range(2):
            calls.line_up(f"few-{number}", key=OTHER, headers=wait("50s"))
    calls.join()
    assert order(mock)[:4] == ["many-0", "few-0", "many-1", "few-1"]


def test_a_callers_own_limit_holds_up_nobody_else(start_gateway, mock):
    gateway = start_gateway(two_consumers(mock, {}, limits="1/4s"))
    assert gateway.get(PATH).status_code == 200
    calls = Calls(gateway)
    calls.line_up("own", headers=wait("20s"))
    with gateway.new_client(OTHER) as other:
        for _ in range(5):
            answer = other.get(PATH)
            assert (answer.status_code, answer.headers["Penstock-Waited"]) == (200, "0ms")
    assert waiting(gateway) == 1
    assert waited_ms(calls.join()["own"]) > 2_000


def test_an_endpoints_limit_holds_up_no_other_endpoint(start_gateway, mock):
    endpoints = [{"name": "narrow", "path": "/anything/narrow", "limits": "1/4s"}]
    gateway = start_gateway(configuration(mock, {"endpoints": endpoints}))
    assert gateway.get(f"{PATH}/narrow").status_code == 200
    calls = Calls(gateway)
    calls.line_up("narrow", headers=wait("20s"))
    assert gateway.get(PATH).headers["Penstock-Waited"] == "0ms"
    assert calls.join()["narrow"].status_code == 200


def test_callers_who_hang_up_leave_the_line_and_spend_nothing(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE | {"prices": {"per_call_usd": "0.01"}}))
    request = (
        f"GET {PATH}/gone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nPenstock-Wait: 60s\r\n\r\n"
    )
    with busy(gateway, mock) as calls:
        calls.line_up("stays", headers=wait("50s"))
        for number in range(20):
            with gateway.connect() as sock:
                sock.sendall(request.encode())
                if number % 2 == 0:
                    sock.sendall(request.encode())  # a next request hides nothing
                until(lambda: waiting(gateway) == 2)
            until(lambda: waiting(gateway) == 1)
    assert calls.join()["stays"].status_code == 200
    assert order(mock) == ["stays"]
    assert len(gateway.calls(20, reason="caller_cancelled", attempts=0, status=499)) == 20
    assert gateway.metric("penstock_queue_depth", provider="mock") == 0
    until(lambda: gateway.provider()["in_flight"] == 0)


def test_a_full_line_refuses_at_once_or_gives_up_its_lowest_lane(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE | {"wait": {"max_waiting": 2}}))
    with busy(gateway, mock) as calls:
        calls.line_up("first", headers=wait("50s", "batch"))
        calls.line_up("second", headers=wait("50s", "batch"))
        refused = gateway.get(PATH, headers=wait("50s", "batch"))
        check_refusal(refused, 503, "policy_queue_full")
        assert waited_ms(refused) < 1_000
        calls.start("third", headers=wait("50s", "interactive"))
        until(lambda: "second" in calls.answers)  # the latest deadline of the lowest lane
        check_refusal(calls.answers["second"], 503, "policy_queue_full")
        assert waiting(gateway) == 2
    calls.join()
    assert order(mock) == ["third", "first"]


def test_bodies_that_wait_are_bounded_in_bytes(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE | {"wait": {"max_bytes": "40KiB"}}))
    with busy(gateway, mock) as calls:
        calls.line_up("small", headers=wait("50s"))
        refused = gateway.post(PATH, content=b"x" * 50_000, headers=wait("50s"))
        check_refusal(refused, 503, "policy_queue_full")
    assert calls.join()["small"].status_code == 200


def test_a_deadline_that_comes_refuses(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE))
    with busy(gateway, mock):
        began = time.monotonic()
        answer = gateway.get(f"{PATH}/late", headers=wait("400ms"))
        assert 0.4 <= time.monotonic() - began < 3
        check_refusal(answer, 503, "policy_deadline_exceeded")
        assert waited_ms(answer) >= 400
        assert waiting(gateway) == 0
    assert order(mock) == []


def test_what_cannot_start_in_time_is_told_at_once(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "1/10s"}))
    assert gateway.get(PATH).status_code == 200
    hopeless = gateway.get(PATH, headers=wait("2s"))
    check_refusal(hopeless, 429, "policy_rate_limited")  # by the limit itself
    calls = Calls(gateway)
    calls.line_up("next", headers=wait("14s"))
    behind = gateway.get(PATH, headers=wait("15s"))
    check_refusal(behind, 503, "policy_deadline_exceeded")  # by the one ahead
    assert 15 <= int(behind.headers["Retry-After"]) <= 21
    for answer in (hopeless, behind):
        assert waited_ms(answer) == 0
    calls.start("ahead", headers=wait("13s"))  # an earlier deadline goes first: the other has no chance now
    until(lambda: waiting(gateway) == 2)
    gateway.stop()
    calls.join()


def test_who_may_not_wait_is_refused_and_does_not_pass_by(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE))
    with busy(gateway, mock) as calls:
        check_refusal(gateway.get(PATH, headers=wait("0s")), 429, "policy_rate_limited")
        calls.line_up("waits", headers=wait("50s"))
        check_refusal(gateway.get(PATH, headers=wait("0s")), 429, "policy_rate_limited")
    assert calls.join()["waits"].status_code == 200


def test_who_says_nothing_waits_for_the_default_time_in_the_default_lane(start_gateway, mock):
    provider = ONE_PLACE | {"wait": {"default": "20s", "lane": "batch"}}
    routes = {"way": {"targets": [{"provider": "mock"}], "wait": {"default": "30s", "lane": "interactive"}}}
    gateway = start_gateway(configuration(mock, provider, routes=routes))
    with busy(gateway, mock) as calls:
        calls.line_up("provider")
        calls.line_up("route", path="/r/way/anything/route")
        assert gateway.metric("penstock_queue_depth", lane="batch") == 1
        assert gateway.metric("penstock_queue_depth", lane="interactive") == 1
    calls.join()
    assert order(mock) == ["route", "provider"]


@pytest.mark.parametrize("how", [{"max": "0s"}, {"max_waiting": 0}])
def test_waiting_can_be_turned_off(start_gateway, mock, how):
    gateway = start_gateway(configuration(mock, ONE_PLACE | {"wait": how}))
    with busy(gateway, mock):
        check_refusal(gateway.get(PATH, headers=wait("1m")), 429, "policy_rate_limited")


def test_more_than_the_most_is_taken_as_the_most(start_gateway, mock):
    gateway = start_gateway(configuration(mock, ONE_PLACE | {"wait": {"max": "300ms"}}))
    with busy(gateway, mock):
        answer = gateway.get(PATH, headers=wait("10m"))
        check_refusal(answer, 503, "policy_deadline_exceeded")
        assert 300 <= waited_ms(answer) < 3_000


def test_budgets_are_not_waited_for(start_gateway, mock):
    budgets = [{"window": "daily", "limit_usd": "0.015"}]
    gateway = start_gateway(
        configuration(mock, ONE_PLACE | {"prices": {"per_call_usd": "0.01"}, "budgets": budgets})
    )
    with busy(gateway, mock):
        answer = gateway.get(PATH, headers=wait("1m"))
        assert (answer.status_code, answer.headers["Penstock-Reason"]) == (429, "policy_budget_exceeded")
        assert waited_ms(answer) == 0


def test_a_providers_own_pause_is_waited_for(start_gateway, mock):
    mock.script(status=429, retry_after="1", times=1)
    gateway = start_gateway(configuration(mock))
    assert gateway.get(PATH).status_code == 429
    answer = gateway.get(PATH)
    assert answer.status_code == 200
    assert 500 <= waited_ms(answer) <= 3_000
    first, second = starts_at(mock)
    assert second - first >= SECOND - SECOND // 20


def test_an_open_circuit_is_waited_for_on_request_only(start_gateway, mock):
    mock.script(status=503, times=3)
    circuit = {"min_calls": 3, "cooldown": "2s", "half_open_trials": 1}
    gateway = start_gateway(configuration(mock, {"circuit": circuit}))
    for _ in range(3):
        assert gateway.get(PATH).status_code == 503
    check_refusal(gateway.get(PATH), 503, "policy_circuit_open")
    check_refusal(gateway.get(PATH, headers=wait("100ms")), 503, "policy_circuit_open")
    answers = in_parallel(4, 4, lambda n: gateway.get(PATH, headers=wait("20s")))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(500 < waited_ms(answer) < 6_000 for answer in answers)
    assert gateway.metric("penstock_admissions_total", decision="wait", reason="policy_circuit_open") >= 1


def test_a_free_target_is_better_than_a_turn(start_gateway, mock):
    providers = {"mock": upstream(mock, **ONE_PLACE), "second": upstream(mock, concurrency=1)}
    routes = {"way": {"targets": [{"provider": "mock"}, {"provider": "second"}]}}
    gateway = start_gateway(configuration(mock, providers=providers, routes=routes))
    with busy(gateway, mock) as calls:
        answer = gateway.get("/r/way/anything/free", headers=wait("50s"))
        assert (answer.headers["Penstock-Provider"], waited_ms(answer)) == ("second", 0)
        calls.start("slow", path="/p/second/anything/slow?latency_us=1500000")
        until(lambda: gateway.provider("second")["in_flight"] == 1)
        calls.line_up("turn", path="/r/way/anything/turn", headers=wait("50s"))  # both are busy: the first
    answers = calls.join()
    assert answers["turn"].headers["Penstock-Provider"] == "mock"
    assert answers["turn"].status_code == 200


def test_a_reload_that_raises_a_limit_wakes_who_waits(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "1/minute"}))
    assert gateway.get(PATH).status_code == 200
    calls = Calls(gateway)
    calls.line_up("raised", headers=wait("2m"))
    gateway.reload(configuration(mock, {"limits": "100/minute"}))
    answer = calls.join()["raised"]
    assert answer.status_code == 200
    assert waited_ms(answer) < 30_000


def test_a_reload_that_removes_the_provider_sends_who_waits_away(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "1/minute"}))
    assert gateway.get(PATH).status_code == 200
    calls = Calls(gateway)
    calls.line_up("gone", headers=wait("2m"))
    gateway.reload(
        configuration(mock, providers={"other": upstream(mock)}) | {"providers": {"other": upstream(mock)}}
    )
    check_refusal(calls.join()["gone"], 503, "policy_deadline_exceeded")
    assert mock.stats()["requests"] == 1


def test_at_the_end_of_the_process_nobody_waits(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "1/minute"}))
    assert gateway.get(PATH).status_code == 200
    calls = Calls(gateway)
    for number in range(3):
        calls.line_up(f"call-{number}", headers=wait("5m"))
    began = time.monotonic()
    gateway.stop()
    assert time.monotonic() - began < 8
    for answer in calls.join().values():
        check_refusal(answer, 503, "policy_deadline_exceeded")
    assert mock.stats()["requests"] == 1
