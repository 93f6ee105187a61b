"""Answers reach the caller byte for byte, event by event (G7), and cost what the provider bills for them; where
that cannot be known, never less."""

import gzip
import json
import threading

import anthropic
import httpx
import openai
import pytest
from harness import CHAT, CREDENTIAL, HELLO, KEY, configuration, nano, until, upstream
from raw_http import Closed, Upstream, connect

PRICES = {
    "input_nano_usd_per_token": 150,
    "cached_input_nano_usd_per_token": 75,
    "output_nano_usd_per_token": 600,
}
MODEL = {
    "input_usd_per_million": "0.15",
    "cached_input_usd_per_million": "0.075",
    "output_usd_per_million": "0.6",
    "max_output_tokens": 16384,
}
STREAM = CHAT | {"stream": True}
WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}
CHAT_PATH = "/v1/chat/completions"
GEMINI = {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 20}}


@pytest.fixture
def llm(start_gateway, mock):
    """llm(provider's fields) starts a gateway whose provider `mock` has the mock's own prices per token."""
    mock.prices(**PRICES)

    def start(**fields):
        provider = {"api": "openai", "prices": {"default_model": MODEL}} | fields
        return start_gateway(configuration(mock, provider))

    return start


def raw_post(url, body, **options):
    """The body exactly as it came, and the response."""
    with httpx.stream("POST", url, json=body, trust_env=False, timeout=20, **options) as response:
        return b"".join(response.iter_raw()), response


def through(gateway, path, body, **headers):
    return raw_post(f"{gateway.url}/p/mock{path}", body, headers={"Authorization": f"Bearer {KEY}"} | headers)


def cost_of(gateway, count=1):
    """What the last call cost by its log line, its metrics and its provider's budget, which all agree."""
    line = gateway.calls(count)[-1]
    return round(line["cost_usd"] * 10**9), line


def credit(gateway):
    return gateway.metric("external_api_credit_used_total", provider="mock") * 10**9


def raw_request(path, body, *lines):
    body = json.dumps(body).encode()
    head = f"POST /p/mock{path} HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n".encode()
    head += b"".join(line + b"\r\n" for line in lines)
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


BODIES = {
    "chat": (CHAT_PATH, CHAT),
    "chat-stream": (CHAT_PATH, STREAM),
    "chat-stream-usage": (CHAT_PATH, WITH_USAGE),
    "responses": ("/v1/responses", {"model": "m", "input": "hello"}),
    "responses-stream": ("/v1/responses", {"model": "m", "input": "hello", "stream": True}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "hello"}),
    "messages": ("/v1/messages", {"model": "m", "max_tokens": 30, "messages": HELLO}),
    "messages-stream": ("/v1/messages", {"model": "m", "max_tokens": 30, "messages": HELLO, "stream": True}),
    "gemini": ("/v1beta/models/g:generateContent", GEMINI),
    "gemini-stream": ("/v1beta/models/g:streamGenerateContent?alt=sse", GEMINI),
    "gemini-array": ("/v1beta/models/g:streamGenerateContent", GEMINI),
}


def api_of(name):
    return "anthropic" if name.startswith("messages") else "gemini" if name.startswith("gemini") else "openai"


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("gap", ["", "gap_us=300"])
def test_every_byte_passes_and_the_cost_is_what_is_billed(llm, mock, name, gap):
    path, body = BODIES[name]
    path += ("&" if "?" in path else "?") + gap
    if name != "embeddings":  # there is no cache of them
        path += "&cached_tokens=1"
    direct, expected = raw_post(mock.url + path, body)
    billed = mock.billed()
    assert billed > 0
    gateway = llm(api=api_of(name))
    got, response = through(gateway, path, body)
    assert got == direct
    assert response.status_code == 200
    assert response.headers["Content-Type"] == expected.headers["Content-Type"]
    assert mock.billed() == 2 * billed
    cost, line = cost_of(gateway)
    if name == "chat-stream":  # it told no usage: never less than billed, and marked
        assert cost >= billed
        assert line["cost_estimated"] is True
    else:
        assert cost == billed == credit(gateway)
        assert "cost_estimated" not in line
        if "Penstock-Cost" in response.headers:
            assert nano(response.headers["Penstock-Cost"]) == billed
    assert ("Penstock-Cost" in response.headers) == ("stream" not in name)


@pytest.mark.parametrize(
    "name", ["chat-stream-usage", "responses-stream", "messages-stream", "gemini-stream"]
)
def test_the_cost_of_a_stream_is_its_trailer(llm, mock, name):
    path, body = BODIES[name]
    gateway = llm(api=api_of(name))
    with connect(gateway.port) as client:
        for count in (1, 2):  # the connection goes on
            client.send(raw_request(path, body, b"TE: trailers", b"Connection: TE"))
            response = client.response()
            assert response.chunked
            assert response.get("Trailer") == "Penstock-Cost"
            ((field, value),) = response.trailers
            assert (field, nano(value.decode()) * count) == (b"Penstock-Cost", mock.billed())
        client.send(raw_request(path, body))
        assert client.response().trailers == []


# --- the official clients ---


def test_openai_client_streams_as_without_the_gateway(llm, mock):
    gateway = llm()

    def chunks(base_url, key):
        with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
            stream = client.chat.completions.create(**WITH_USAGE)
            return [chunk.model_dump() for chunk in stream]

    direct = chunks(mock.url + "/v1", "sk-direct")
    assert chunks(gateway.url + "/p/mock/v1", KEY) == direct
    assert len(direct) == 45
    callers = mock.get("bill")["callers"]
    assert cost_of(gateway)[0] == callers[CREDENTIAL]["nano_usd"] == callers["sk-direct"]["nano_usd"]


def test_openai_responses_client(llm, mock):
    gateway = llm()
    with openai.OpenAI(base_url=gateway.url + "/p/mock/v1", api_key=KEY, max_retries=0) as client:
        events = list(client.responses.create(model="gpt-4o", input="hello", stream=True))
    assert events[-1].type == "response.completed"
    assert cost_of(gateway)[0] == mock.billed() > 0


def test_anthropic_client(llm, mock):
    """Its key stands in x-api-key; the provider gets the gateway's credential there."""
    gateway = llm(api="anthropic", credential={"header": "x-api-key", "value": CREDENTIAL})
    with anthropic.Anthropic(base_url=gateway.url + "/p/mock", api_key=KEY, max_retries=0) as client:
        with client.messages.stream(model="claude-mock", max_tokens=10, messages=HELLO) as stream:
            message = stream.get_final_message()
        assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 10)
        answer = client.messages.create(model="claude-mock", max_tokens=20, messages=HELLO)
        assert answer.usage.output_tokens == 20
    assert sum(round(line["cost_usd"] * 10**9) for line in gateway.calls(2)) == mock.billed() > 0
    assert list(mock.get("bill")["callers"]) == [CREDENTIAL]


def test_gemini_key_field(llm, mock):
    gateway = llm(api="gemini", credential={"header": "x-goog-api-key", "value": CREDENTIAL})
    path, body = BODIES["gemini-stream"]
    _, response = raw_post(f"{gateway.url}/p/mock{path}", body, headers={"x-goog-api-key": KEY})
    assert response.status_code == 200
    assert cost_of(gateway)[0] == mock.billed() > 0
    assert list(mock.get("bill")["callers"]) == [CREDENTIAL]


def test_clients_raise_the_right_exceptions(llm, mock):
    gateway = llm(budgets=[{"window": "daily", "limit_usd": "0.000001"}])
    with openai.OpenAI(base_url=gateway.url + "/p/mock/v1", api_key=KEY, max_retries=3) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**CHAT)
    assert caught.value.code == "policy_budget_exceeded"
    assert caught.value.type == "insufficient_quota"
    assert len(gateway.calls(1)) == 1  # it did not come back
    with openai.OpenAI(base_url=gateway.url + "/p/mock/v1", api_key="pk_wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(**CHAT)
    with anthropic.Anthropic(base_url=gateway.url + "/p/mock", api_key="pk_wrong", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model="m", max_tokens=1, messages=HELLO)
    assert mock.stats()["requests"] == 0


# --- usage that was not asked for ---


@pytest.mark.parametrize("gap", ["", "?gap_us=300"])
def test_injected_usage_is_taken_out_again_and_the_cost_exact(llm, mock, gap):
    with_usage, _ = raw_post(mock.url + CHAT_PATH + gap, WITH_USAGE)
    events = with_usage.split(b"\n\n")
    (usage_event,) = [event for event in events if b'"choices":[]' in event]
    events.remove(usage_event)
    mock.admin("reset")
    mock.prices(**PRICES)
    gateway = llm(stream_usage="inject")
    got, _ = through(gateway, CHAT_PATH + gap, STREAM)
    assert got == b"\n\n".join(events)
    assert b"total_tokens" not in got
    cost, line = cost_of(gateway)
    assert cost == mock.billed() > 0
    assert "cost_estimated" not in line
    # Who asked by itself gets the event.
    assert through(gateway, CHAT_PATH + gap, WITH_USAGE)[0] == with_usage
    assert cost_of(gateway, 2)[0] * 2 == mock.billed()


def test_only_what_must_be_changed_of_the_body_is_changed(start_gateway, mock):
    seen = []

    def answer(request, stream):
        seen.append(request.body)
        stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\n")
        stream.send(b"data: [DONE]\n\n")
        return True

    provider = Upstream(answer)
    fields = {
        "base_url": f"http://127.0.0.1:{provider.port}",
        "api": "openai",
        "stream_usage": "inject",
        "prices": {"default_model": MODEL},
    }
    try:
        gateway = start_gateway(configuration(mock, fields))
        body = b'{ "model":"m",\n "messages" : [ ], "x": 1.0e+2, "stream":true, "u": "\\u00e9\xc3\xa9" }'
        options = {"content": body, "headers": {"Content-Type": "application/json"}}
        assert gateway.post(f"/p/mock{CHAT_PATH}", **options).content == b"data: [DONE]\n\n"
        gateway.post("/p/mock/v1/other", **options)
    finally:
        provider.close()
    changed, untouched = seen
    assert untouched == body
    assert json.loads(changed) == json.loads(body) | {"stream_options": {"include_usage": True}}
    assert changed.replace(b'"stream_options":{"include_usage":true}', b"").replace(
        b",", b""
    ) == body.replace(b",", b"")


@pytest.mark.parametrize("scripted", ["no_usage=1", "sse_error=1", "completion_tokens=3000&no_usage=1"])
@pytest.mark.parametrize("body", [WITH_USAGE, STREAM | {"max_tokens": 4000}], ids=["usage", "bound"])
def test_a_stream_that_tells_no_usage_is_charged_at_least_what_is_billed(llm, mock, scripted, body):
    gateway = llm()
    through(gateway, f"{CHAT_PATH}?{scripted}", body)
    cost, line = cost_of(gateway)
    assert cost >= mock.billed()
    assert line["cost_estimated"] is True
    assert gateway.metric("penstock_unmetered_total", provider="mock") == 1
    assert gateway.metric("external_api_credit_used_total", credit_type="estimated") * 10**9 == cost


def test_an_answer_without_usage_is_charged_its_bound(llm, mock):
    gateway = llm()
    answer = gateway.chat(json={"max_tokens": 50}, params={"no_usage": 1})
    assert nano(answer.headers["Penstock-Cost"]) >= 50 * 600
    assert nano(answer.headers["Penstock-Cost"]) >= mock.billed() > 0
    assert gateway.calls()[0]["cost_estimated"] is True


def test_an_answer_too_large_to_be_read_passes_whole(llm, mock):
    gateway = llm(max_metered="1KiB")
    options = {"json": CHAT | {"max_tokens": 1000}, "params": {"completion_tokens": 1000}}
    direct = httpx.post(mock.url + CHAT_PATH, trust_env=False, **options).content
    answer = gateway.post(f"/p/mock{CHAT_PATH}", **options)
    assert answer.content == direct
    assert len(direct) > 4096
    cost, line = cost_of(gateway)
    assert cost >= mock.billed() // 2
    assert line["cost_estimated"] is True


def test_gzip_is_not_asked_for_where_usage_is_read(start_gateway, mock):
    providers = {
        "mock": upstream(mock, api="openai", prices={"default_model": MODEL}),
        "plain": upstream(mock, prices={"per_call_usd": "0.01"}),
    }
    gateway = start_gateway(configuration(mock, providers=providers))

    def encodings(path):
        answer = gateway.get(path, headers={"Accept-Encoding": "gzip, br"})
        return {k.lower(): v for k, v in answer.json()["headers"].items()}["accept-encoding"]

    assert encodings("/p/mock/anything") == "identity"
    assert encodings("/p/plain/anything") == "gzip, br"


def test_a_compressed_answer_passes_untouched_and_is_charged_its_bound(start_gateway, mock):
    body = gzip.compress(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    provider = Upstream(lambda request, stream: stream.send(head % len(body) + body) or True)
    fields = {
        "base_url": f"http://127.0.0.1:{provider.port}",
        "api": "openai",
        "prices": {"default_model": MODEL},
    }
    try:
        gateway = start_gateway(configuration(mock, fields))
        got, response = through(gateway, CHAT_PATH, CHAT | {"max_tokens": 10})
    finally:
        provider.close()
    assert got == body
    assert response.headers["Content-Encoding"] == "gzip"
    cost, line = cost_of(gateway)
    assert cost >= 10 * 600
    assert line["cost_estimated"] is True


# --- time ---


def test_events_pass_one_by_one(start_gateway, mock):
    """The provider sends an event only after the caller has got the one before."""
    taken = [threading.Event() for _ in range(5)]

    def answer(request, stream):
        stream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number, event in enumerate(taken):
            data = b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number
            stream.send(b"%x\r\n%s\r\n" % (len(data), data))
            assert event.wait(10)
        stream.send(b"0\r\n\r\n")
        return True

    provider = Upstream(answer)
    fields = {
        "base_url": f"http://127.0.0.1:{provider.port}",
        "api": "openai",
        "stream_usage": "inject",
        "prices": {"default_model": MODEL},
    }
    try:
        gateway = start_gateway(configuration(mock, fields))
        with gateway.client.stream("POST", f"/p/mock{CHAT_PATH}", json=STREAM) as response:
            for number, event in enumerate(response.iter_raw()):
                assert event == b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number
                taken[number].set()
            assert number == 4
    finally:
        provider.close()


def hang_up_after_the_first_event(gateway, path, body):
    with connect(gateway.port) as client:
        client.send(raw_request(path, body))
        while b"data:" not in client.held:
            client._more()


@pytest.mark.parametrize(
    "name", ["chat-stream-usage", "responses-stream", "messages-stream", "gemini-stream"]
)
def test_a_caller_who_hangs_up_is_billed_what_the_provider_bills(llm, mock, name):
    path, body = BODIES[name]
    gateway = llm(api=api_of(name))
    hang_up_after_the_first_event(gateway, path + ("&" if "?" in path else "?") + "gap_us=5000", body)
    cost, line = cost_of(gateway)
    assert cost == mock.billed() > 0
    assert "cost_estimated" not in line
    assert mock.stats()["disconnects"] == 0
    assert gateway.provider()["in_flight"] == 0


def test_a_caller_who_hangs_up_with_cancel_ends_it_at_once(llm, mock):
    mock.admin("settings", bill_on_disconnect="sent")
    gateway = llm(on_disconnect="cancel")
    hang_up_after_the_first_event(
        gateway, f"{CHAT_PATH}?gap_us=10000&completion_tokens=3000", WITH_USAGE | {"max_tokens": 3000}
    )
    mock.await_stats(disconnects=1, in_flight=0)
    cost, line = cost_of(gateway)
    assert mock.billed() <= cost < 3000 * 600
    assert line["reason"] == "caller_cancelled"
    assert line["cost_estimated"] is True


def test_a_drain_has_bounds(llm, mock):
    """The rest takes longer than the drain may: the estimate stands."""
    gateway = llm(drain={"timeout": "300ms"})
    hang_up_after_the_first_event(
        gateway, f"{CHAT_PATH}?gap_us=20000&chunks=3000", WITH_USAGE | {"max_tokens": 3000}
    )
    mock.await_stats(disconnects=1, in_flight=0)
    cost, line = cost_of(gateway)
    assert cost >= 3000 * 600
    assert line["reason"] == "caller_cancelled"


# --- providers that break off ---


@pytest.mark.parametrize("reset", ["", "&cut_reset=1"])
def test_a_stream_that_the_provider_cuts_is_seen_as_cut(llm, mock, reset):
    gateway = llm()
    with connect(gateway.port) as client:
        client.send(raw_request(f"{CHAT_PATH}?cut_after_bytes=2500{reset}", WITH_USAGE))
        with pytest.raises(Closed):
            client.response()
    cost, line = cost_of(gateway)
    assert cost >= mock.billed() > 0
    assert (line["status"], line["reason"], line["cost_estimated"]) == (200, "provider_error", True)


def test_usage_told_before_the_cut_counts_only_as_a_part(llm, mock):
    """Anthropic tells the input first and the output as it grows: of a cut stream that is not the whole."""
    gateway = llm(api="anthropic")
    path, body = BODIES["messages-stream"]
    with connect(gateway.port) as client:
        client.send(raw_request(f"{path}?cut_after_bytes=2000&extra_usage=1", body))
        with pytest.raises(Closed):
            client.response()
    cost, line = cost_of(gateway)
    assert cost >= mock.billed() > 0
    assert line["cost_estimated"] is True


def test_an_answer_that_is_cut_before_it_could_be_read_is_a_502(llm, mock):
    gateway = llm()
    answer = gateway.chat(params={"cut_after_bytes": 100})
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_error")
    assert nano(answer.headers["Penstock-Cost"]) >= mock.billed() > 0


def test_a_stream_that_stalls_ends_in_time(llm, mock):
    gateway = llm(timeouts={"between_bytes": "200ms"})
    with connect(gateway.port) as client:
        client.send(raw_request(f"{CHAT_PATH}?stall_after_bytes=1500", WITH_USAGE))
        with pytest.raises(Closed):
            client.response()
    cost, line = cost_of(gateway)
    assert cost >= mock.billed() > 0
    assert line["reason"] == "provider_timeout"
    until(lambda: mock.stats()["in_flight"] == 0)


def test_a_provider_that_does_not_answer_in_time_is_a_504(llm, mock):
    gateway = llm(timeouts={"first_byte": "200ms"})
    answer = gateway.chat(params={"latency_us": 30_000_000})
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (504, "provider_timeout")
    assert nano(answer.headers["Penstock-Cost"]) >= mock.billed() > 0
