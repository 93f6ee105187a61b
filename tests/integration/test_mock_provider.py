"""The mock provider against its own promises: every other black-box test leans on them."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import time
import zlib
from datetime import UTC, datetime

import anthropic
import openai
import pytest
from harness import CHAT, HELLO, MOCK_PROVIDER, read_all, read_until, start_mock, stop_mock


@pytest.fixture
def openai_client(mock):
    with openai.OpenAI(base_url=mock.url + "/v1", api_key="sk-openai", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(mock):
    with anthropic.Anthropic(base_url=mock.url, api_key="sk-anthropic", max_retries=0) as client:
        yield client


# --- the dialects, through the official clients ---


def test_openai_chat(openai_client):
    answer = openai_client.chat.completions.create(**CHAT)
    assert answer.model == "gpt-4o-mini"
    assert len(answer.choices[0].message.content.split()) == 42
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 42, 44)


def test_openai_chat_counts_parts_choices_and_max_tokens(openai_client):
    parts = [{"type": "text", "text": "häl"}, {"type": "text", "text": "lo"}]  # 4 + 2 bytes in UTF-8
    messages = [{"role": "system", "content": "abc"}, {"role": "user", "content": parts}]
    answer = openai_client.chat.completions.create(model="m", messages=messages, max_tokens=7, n=3)
    assert len(answer.choices) == 3
    assert answer.choices[2].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 21)


def test_openai_chat_shows_cached_and_reasoning_tokens(openai_client):
    answer = openai_client.chat.completions.create(
        **CHAT,
        extra_query={
            "prompt_tokens": 1000,
            "cached_tokens": 256,
            "completion_tokens": 30,
            "reasoning_tokens": 20,
        },
    )
    assert answer.usage.prompt_tokens == 1000
    assert answer.usage.prompt_tokens_details.cached_tokens == 256
    assert answer.usage.completion_tokens == 30
    assert answer.usage.completion_tokens_details.reasoning_tokens == 20
    assert len(answer.choices[0].message.content.split()) == 10


# A meter that stops at finish_reason would miss the usage: it comes after.
def test_openai_stream_with_usage(openai_client):
    plain = openai_client.chat.completions.create(**CHAT).choices[0].message.content
    stream = openai_client.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (2, 42)


def test_openai_stream_says_null_usage_only_when_asked(mock):
    with_usage = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    body = mock.call("POST", "/v1/chat/completions", with_usage)[2].decode()
    events = [e.removeprefix("data: ") for e in body.split("\n\n") if e]
    assert events[-1] == "[DONE]"
    assert all(json.loads(e)["usage"] is None for e in events[:-2])
    assert json.loads(events[-2])["usage"]["total_tokens"] == 44
    body = mock.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})[2]
    assert b'"usage"' not in body
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("chunks", [1, 5, 42, 100])
def test_streams_have_as_many_events_as_asked_and_the_same_bytes_each_time(mock, chunks):
    path = f"/v1/chat/completions?chunks={chunks}"
    body = mock.call("POST", path, {**CHAT, "stream": True})[2]
    assert body.count(b'"delta":{"content":"') == chunks
    assert body == mock.call("POST", path, {**CHAT, "stream": True})[2]


def test_openai_stream_error_halfway(openai_client):
    stream = openai_client.chat.completions.create(
        **CHAT, stream=True, extra_headers={"X-Mock": "sse_error=1"}
    )
    got = []
    with pytest.raises(openai.APIError, match="had an error"):
        got.extend(stream)
    assert len(got) == 22  # the role, and half of the words


def test_openai_responses(openai_client):
    answer = openai_client.responses.create(model="gpt-4o", input="hello", instructions="be brief")
    assert len(answer.output_text.split()) == 42
    assert answer.status == "completed"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 42, 46)


def test_openai_responses_stream(openai_client):
    plain = openai_client.responses.create(model="gpt-4o", input="hello").output_text
    events = list(openai_client.responses.create(model="gpt-4o", input="hello", stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == plain
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == plain
    assert (events[-1].response.usage.input_tokens, events[-1].response.usage.output_tokens) == (2, 42)


def test_openai_embeddings_are_normal_and_near_for_shared_words(openai_client):
    texts = ["the cat sat on the mat", "the cat sat on the sofa", "quarterly revenue grew strongly"]
    answer = openai_client.embeddings.create(model="text-embedding-3-small", input=texts)
    a, b, c = (item.embedding for item in answer.data)
    assert len(a) == 64
    assert sum(x * x for x in a) == pytest.approx(1, abs=1e-5)

    def dot(x, y):
        return sum(p * q for p, q in zip(x, y, strict=True))

    assert dot(a, b) > 0.6 > 0.4 > dot(a, c)
    assert answer.usage.prompt_tokens == -(-sum(map(len, texts)) // 4)
    floats = openai_client.embeddings.create(
        model="m", input=texts[0], encoding_format="float", dimensions=16, extra_query={"prompt_tokens": 9}
    )
    assert len(floats.data[0].embedding) == 16
    assert floats.usage.total_tokens == 9


def test_openai_models(openai_client, anthropic_client):
    assert "gpt-4o-mini" in [m.id for m in openai_client.models.list()]
    assert openai_client.models.retrieve("some-model").id == "some-model"
    assert "claude-mock" in [m.id for m in anthropic_client.models.list()]


def test_anthropic_messages(anthropic_client):
    answer = anthropic_client.messages.create(
        model="claude-mock",
        max_tokens=100,
        system="abc",
        messages=HELLO,
        extra_headers={"X-Mock": "cached_tokens=1"},
    )
    assert len(answer.content[0].text.split()) == 42
    assert answer.stop_reason == "end_turn"
    usage = answer.usage  # the whole input is input + cache reads
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (1, 1, 42)
    counted = anthropic_client.messages.count_tokens(model="m", messages=HELLO)
    assert counted.input_tokens == 2


@pytest.mark.parametrize("extra", ["", "extra_usage=1"])
def test_anthropic_stream_counts_are_cumulative(anthropic_client, extra):
    with anthropic_client.messages.stream(
        model="claude-mock", max_tokens=10, messages=HELLO, extra_headers={"X-Mock": extra}
    ) as stream:
        events = list(stream)
        message = stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert len(message.content[0].text.split()) == 10
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 10)
    deltas = [e.usage.output_tokens for e in events if e.type == "message_delta"]
    assert deltas == ([*range(1, 11), 10] if extra else [10])


def test_anthropic_stream_error_halfway(anthropic_client):
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        anthropic_client.messages.stream(
            model="m", max_tokens=10, messages=HELLO, extra_headers={"X-Mock": "sse_error=1"}
        ) as stream,
    ):
        list(stream)


def test_gemini(mock):
    body = {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 20}}
    query = "?reasoning_tokens=5&cached_tokens=1"
    status, _, answer = mock.call("POST", f"/v1beta/models/gemini-2.0-flash:generateContent{query}", body)
    assert status == 200
    usage = {
        "promptTokenCount": 2,
        "candidatesTokenCount": 15,  # without the thoughts
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 1,
        "totalTokenCount": 22,
    }
    assert answer["usageMetadata"] == usage
    text = answer["candidates"][0]["content"]["parts"][0]["text"]
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"

    path = f"/v1beta/models/gemini-2.0-flash:streamGenerateContent{query}"
    events = mock.call("POST", path + "&alt=sse", body)[2].decode().split("\r\n\r\n")
    chunks = [json.loads(e.removeprefix("data: ")) for e in events if e]
    assert "".join(c["candidates"][0]["content"]["parts"][0]["text"] for c in chunks) == text
    assert chunks[-1]["usageMetadata"] == usage
    assert mock.call("POST", path, body)[2] == chunks  # without alt=sse it is one array


def test_geocode(mock):
    status, headers, answer = mock.call("GET", "/geocode?q=K%C3%B6ln&credits=3")
    assert status == 200
    assert answer["results"][0]["formatted"] == "Köln"
    assert answer["billing"]["credits"] == 3
    assert headers["X-Credits-Used"] == "3"


# --- errors and limits, as the clients see them ---


def test_scripted_errors_raise_the_right_exceptions(openai_client, anthropic_client):
    with pytest.raises(openai.InternalServerError):
        openai_client.chat.completions.create(**CHAT, extra_query={"status": 503})
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client.chat.completions.create(
            **CHAT, extra_headers={"X-Mock": "status=429; error_code=insufficient_quota; retry_after=56.5"}
        )
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["retry-after"] == "56.5"
    with pytest.raises(anthropic.APIStatusError) as caught:
        anthropic_client.messages.create(model="m", max_tokens=1, messages=HELLO, extra_query={"status": 529})
    assert caught.value.status_code == 529
    assert caught.value.body["error"]["type"] == "overloaded_error"


def test_openai_limits(mock, openai_client):
    mock.admin("limits", requests_per_minute=3, tokens_per_minute=100_000)
    for left in (2, 1, 0):
        headers = openai_client.chat.completions.with_raw_response.create(**CHAT).headers
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
        assert re.fullmatch(r"(\d+m)?(\d+(\.\d+)?s|\d+ms)", headers["x-ratelimit-reset-requests"])
    assert int(headers["x-ratelimit-remaining-tokens"]) >= 100_000 - 3 * (2 + 64)
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client.chat.completions.create(**CHAT)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.type == "requests"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 20  # one of three a minute
    # Each credential has its own buckets.
    assert mock.chat(Authorization="Bearer other")[0] == 200
    assert mock.get("bill")["callers"]["sk-openai"]["calls"] == 3


def test_a_bucket_refills_continuously(mock):
    mock.admin("limits", requests_per_minute=600)
    statuses = [mock.call("GET", "/status/200")[0] for _ in range(650)]
    while statuses[-1] == 200:  # the bucket gains ten a second, this loop is faster
        status, headers, _ = mock.call("GET", "/status/200")
        statuses.append(status)
    _, headers, _ = mock.call("GET", "/status/200")
    log = mock.get("log?n=100000")["requests"][: len(statuses)]
    seconds = (log[-1]["start_ns"] - log[0]["start_ns"]) / 1e9
    assert 600 + 10 * seconds - 2 <= statuses.count(200) <= 600 + 10 * seconds
    assert int(headers.get("retry-after-ms", 0)) <= 100


def test_token_limits_count_what_the_call_may_produce(mock):
    mock.admin("limits", tokens_per_minute=200)
    assert [mock.chat()[0] for _ in range(4)] == [200, 200, 200, 429]  # 66 each
    _, headers, body = mock.chat()
    assert body["error"]["type"] == "tokens"
    assert "x-ratelimit-limit-requests" not in headers


def test_anthropic_limits(mock, anthropic_client):
    mock.admin("limits", requests_per_minute=1, tokens_per_minute=50_000, style="anthropic")
    raw = anthropic_client.messages.with_raw_response.create(model="m", max_tokens=500, messages=HELLO)
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert raw.headers["anthropic-ratelimit-tokens-remaining"] in (
        "49000",
        "50000",
    )  # to the nearest thousand
    reset = datetime.fromisoformat(raw.headers["anthropic-ratelimit-requests-reset"])
    assert 50 < (reset - datetime.now(UTC)).total_seconds() <= 61
    with pytest.raises(anthropic.RateLimitError) as caught:
        anthropic_client.messages.create(model="m", max_tokens=5, messages=HELLO)
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert 50 < int(caught.value.response.headers["retry-after"]) <= 60


def test_github_limits(mock):
    mock.admin("limits", requests_per_minute=1, style="github", status=403, match="/anything/repos")
    assert mock.call("GET", "/anything/repos")[0] == 200
    status, headers, _ = mock.call("GET", "/anything/repos")
    assert status == 403
    assert headers["x-ratelimit-remaining"] == "0"
    assert headers["x-ratelimit-used"] == "1"
    assert 50 < int(headers["x-ratelimit-reset"]) - time.time() <= 61
    assert mock.call("GET", "/anything/else")[0] == 200


# --- scripts ---


def test_scripts_queue_and_run_out(mock):
    mock.admin("script", match="/v1/", rules={"status": 503}, times=2)
    mock.admin("script", match="/v1/chat", rules={"status": 429, "retry_after": 7}, times=1)
    assert [mock.chat()[0] for _ in range(4)] == [503, 503, 429, 200]
    mock.admin("script", match="/v1/", rules={"status": 500})
    assert [mock.chat()[0] for _ in range(3)] == [500] * 3
    assert mock.call("GET", "/anything")[0] == 200
    assert mock.chat(X_Mock="status=418")[0] == 418  # the header outranks the script
    mock.admin("reset")
    assert mock.chat()[0] == 200


@pytest.mark.parametrize("rules", ["laten=1", "status=abc", "fault=nope", "error_rate=2", "latency=exp"])
def test_mistakes_in_a_script_are_refused(mock, rules):
    status, _, body = mock.chat(X_Mock=rules)
    assert status == 400
    assert rules in body["error"]["message"]
    key, value = rules.split("=")
    assert mock.call("POST", "/_mock/script", {"match": "/", "rules": {key: value}})[0] == 400
    assert mock.chat()[0] == 200


def test_error_rates_are_seeded(mock):
    def run():
        mock.admin("reset")
        mock.admin("script", match="/", rules={"error_rate": 0.3, "status": 502})
        return [mock.call("GET", "/status/200")[0] for _ in range(200)]

    first = run()
    assert 35 <= first.count(502) <= 85
    assert first == run()


def test_latency(mock):
    def seconds(path="/v1/chat/completions", **body):
        began = time.monotonic()
        assert mock.call("POST", path, {**CHAT, **body})[0] == 200
        return time.monotonic() - began

    assert seconds("/v1/chat/completions?latency_us=80000") >= 0.08
    assert seconds(model="delay-80000us") >= 0.08
    assert seconds("/v1/chat/completions?latency=uniform:80000:90000") >= 0.08
    assert seconds("/v1/chat/completions?gap_us=20000&chunks=5", stream=True) >= 0.08
    assert seconds("/drip/9") >= 0.08


def test_options_are_the_defaults():
    process, mock = start_mock("--latency-us", "60000", "--chunks", "7", "--gap-us", "1000", "--seed", "5")
    began = time.monotonic()
    body = mock.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})[2]
    assert time.monotonic() - began >= 0.066
    assert body.count(b'"delta":{"content":"') == 7
    stop_mock(process)
    assert subprocess.run([MOCK_PROVIDER, "--port", "x"], capture_output=True).returncode == 2


# --- bytes on the wire ---

GET = b"GET %s HTTP/1.1\r\nHost: mock\r\nConnection: close\r\n\r\n"


def test_echo(mock):
    body = 'snow \u2603 "quoted"\n'
    status, _, answer = mock.call("DELETE", "/anything/a%20b?x=1&x=2", body.encode(), X_Twice="1")
    assert status == 200
    assert (answer["method"], answer["path"], answer["query"]) == ("DELETE", "/anything/a%20b", "x=1&x=2")
    assert answer["headers"]["x-twice"] == "1"
    assert ["X-Twice", "1"] in answer["raw_headers"]
    assert answer["body"] == body
    big = os.urandom(3_000_000)
    answer = mock.call("PUT", "/anything", big)[2]
    assert (answer["body_length"], answer["body_crc32"], answer["body"]) == (len(big), zlib.crc32(big), None)


def test_pipelined_requests_are_answered_in_order(mock):
    request = (
        b"POST /anything/%d HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\nX-Mock: latency_us=%d\r\n\r\nabc"
    )
    pipeline = b"".join(request % (i, 20000 if i == 1 else 0) for i in range(5))
    got = mock.raw(pipeline + GET % b"/anything/5").decode()
    assert re.findall(r'"path":"/anything/(\d)"', got) == list("012345")
    assert got.count("HTTP/1.1 200 OK") == 6


# A chunked body may arrive in any pieces, with extensions and trailers.
def test_chunked_request_in_single_bytes(mock):
    request = (
        b"POST /anything HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-End: yes\r\n\r\n"
    )
    with mock.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(request)):
            sock.sendall(request[i : i + 1])
        got = read_all(sock)
    answer = json.loads(got.split(b"\r\n\r\n", 1)[1])
    assert (answer["body"], answer["framing"], answer["trailers"]) == (
        "abc0123456789",
        "chunked",
        "X-End: yes\r\n",
    )


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length: 3\r\nContent-Length: 3", 400),
        (b"Content-Length: +3", 400),
        (b"Content-Length: 3, 3", 400),
        (b"Transfer-Encoding: gzip, chunked", 400),
        (b"Host : m", 400),
        (b" folded", 400),
        (b"Content-Length: 67108865", 413),
        (b"X-Big: " + b"x" * 65536, 431),
    ],
)
def test_a_gateway_that_forwards_bad_framing_is_found_out(mock, lines, status):
    got = mock.raw(b"POST /anything HTTP/1.1\r\nHost: m\r\n" + lines + b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert mock.get("log")["requests"][-1]["status"] == status


def test_expect_continue(mock):
    with mock.connect() as sock:
        sock.sendall(
            b"PUT /anything HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert b'"body":"ok"' in read_until(sock, b'"body":"ok"}')


def test_early_answer(mock):
    with mock.connect() as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000\r\n\r\nonly this")
        got = read_all(sock)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in got


def test_early_hints_head_http10_and_trailers(mock):
    got = mock.raw(GET % b"/continue-103")
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in got
    got = mock.raw((GET % b"/bytes/100").replace(b"GET", b"HEAD"))
    assert b"Content-Length: 100\r\n" in got
    assert got.endswith(b"\r\n\r\n")
    got = mock.raw(b"GET /chunked/10 HTTP/1.0\r\n\r\n")
    assert b"chunked" not in got
    assert got.endswith(b"\r\n\r\nabcdefghij")
    got = mock.raw(GET % b"/chunked/10?trailers=1")
    assert got.endswith(b"0\r\nX-Checksum: mock\r\nX-Length: 10\r\n\r\n")
    got = mock.raw(GET % b"/status/204")
    assert b"Content-Length" not in got


def test_big_answers_arrive_whole_and_slow_readers_cost_no_memory(mock):
    size = 40_000_000
    pattern = bytes(ord("a") + i % 26 for i in range(26))
    expected = (pattern * (size // 26 + 1))[:size]
    with mock.connect() as sock:
        sock.sendall(GET % b"/bytes/%d" % size)
        read_until(sock, b"\r\n")
        mock.await_stats(in_flight=1)
        held = mock.get("stats")["bytes_out"]
        assert held < 10_000_000  # it stopped when the socket was full
    assert mock.call("GET", f"/bytes/{size}")[2] == expected
    assert mock.call("GET", f"/chunked/{size}?chunks=3")[2] == expected


FAULTS = {
    "cl_te": rb"Content-Length: \d+\r\nTransfer-Encoding: chunked\r\n",
    "bad_chunk": rb"\r\n\r\nzz\r\n",
    "bad_cl": rb"Content-Length: \d+x\r\n",
    "two_cl": rb"Content-Length: \d+\r\nContent-Length: \d+\r\n",
    "obs_fold": rb"X-Folded: one\r\n two\r\n",
    "no_reason": rb"^HTTP/1\.1 200\r\n",
    "garbage": rb"^\x16\x03\x01",
    "lf_only": rb"^HTTP/1\.1 200 OK\n",
    "huge_header": rb"X-Huge: h{262144}\r\n",
    "truncated_head": rb"\r\nContent-Len$",
    "switching": rb"^HTTP/1\.1 101 Switching Protocols\r\n",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", ["false", "true"])
def test_faults(mock, fault, stream):
    body = b'{"model":"m","messages":[],"stream":%s}' % stream.encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\n"
    request = f"{head}X-Mock: fault={fault}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with mock.connect() as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        assert re.search(FAULTS[fault], read_all(sock))


def test_cuts_and_stalls(mock):
    request = b"GET /anything HTTP/1.1\r\nHost: m\r\nX-Mock: %s\r\n\r\n"
    assert mock.raw(request % b"cut_before_head=1") == b""
    assert mock.get("log")["requests"][-1]["status"] == 0
    head, body = mock.raw(request % b"cut_after_bytes=10").split(b"\r\n\r\n", 1)
    assert body == b'{"method":'
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) > 10
    with pytest.raises(ConnectionResetError):
        mock.raw(request % b"cut_before_head=1;cut_reset=1")
    with mock.connect() as sock:
        sock.sendall(request % b"stall_after_bytes=4")
        assert read_until(sock, b"\r\n\r\n{").split(b"\r\n\r\n")[1] == b'{"me'
        mock.await_stats(in_flight=1)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    mock.await_stats(in_flight=0, disconnects=1)


# The cut counts bytes of the body as they stand on the wire, chunk framing included.
def test_a_stream_is_cut_at_every_offset(mock):
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 2}).encode()
    head = (
        b"POST /v1/chat/completions?%s HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )
    whole = mock.raw(head % (b"", len(body)) + body).split(b"\r\n\r\n", 1)[1]
    for offset in range(0, len(whole), 7):
        got = mock.raw(head % (b"cut_after_bytes=%d" % offset, len(body)) + body)
        assert got.split(b"\r\n\r\n", 1)[1] == whole[:offset]


# A bound that the body just fits is none: the answer is whole and the connection goes on.
@pytest.mark.parametrize("key", ["cut_after_bytes", "stall_after_bytes"])
def test_a_cut_at_the_end_of_the_body_is_no_cut(mock, key):
    size = len(mock.raw(GET % b"/status/200").split(b"\r\n\r\n", 1)[1])
    request = b"GET /status/200 HTTP/1.1\r\nHost: m\r\nX-Mock: %s=%d\r\n\r\n" % (key.encode(), size)
    assert mock.raw(request + GET % b"/status/200").count(b'{"status":200}') == 2


# --- the bill ---


def test_the_bill_counts_callers_kinds_and_nano_dollars(mock, openai_client, anthropic_client):
    mock.admin(
        "prices",
        input_nano_usd_per_token=150,
        output_nano_usd_per_token=600,
        cached_input_nano_usd_per_token=75,
        credit_nano_usd=5_000_000,
        call_nano_usd=1,
    )
    for _ in range(3):
        openai_client.chat.completions.create(**CHAT, extra_query={"prompt_tokens": 100, "cached_tokens": 40})
    list(openai_client.responses.create(model="m", input="hello", stream=True))
    anthropic_client.messages.create(
        model="m", max_tokens=5, messages=HELLO, extra_query={"cached_tokens": 1}
    )
    mock.call("POST", "/v1beta/models/g:generateContent?key=goog", {"contents": [], "x": 1})
    mock.call("GET", "/geocode?q=x&credits=2&key=geo")
    mock.call("GET", "/anything")
    with pytest.raises(openai.InternalServerError):
        openai_client.chat.completions.create(**CHAT, extra_query={"status": 500})
    mock.chat(Authorization="Bearer forced", X_Mock="status=500;bill=1;prompt_tokens=1;completion_tokens=0")

    bill = mock.get("bill")
    callers = bill["callers"]
    chat = 3 * (60 * 150 + 40 * 75 + 42 * 600 + 1)
    assert callers["sk-openai"]["kinds"]["chat"] == {
        "calls": 3,
        "prompt_tokens": 300,
        "completion_tokens": 126,
        "cached_tokens": 120,
        "credits": 0,
        "nano_usd": chat,
    }
    responses = 2 * 150 + 42 * 600 + 1
    assert callers["sk-openai"]["nano_usd"] == chat + responses
    assert callers["sk-anthropic"]["nano_usd"] == 150 + 75 + 5 * 600 + 1
    assert callers["goog"]["nano_usd"] == 42 * 600 + 1
    assert callers["geo"]["nano_usd"] == 2 * 5_000_000 + 1
    assert callers["anonymous"]["nano_usd"] == 1
    assert callers["forced"]["nano_usd"] == 151
    assert bill["total"]["nano_usd"] == sum(c["nano_usd"] for c in callers.values())
    assert bill["total"]["calls"] == sum(k["calls"] for k in bill["kinds"].values()) == 9


def test_max_tokens_caps_the_bill_unless_told_otherwise(mock):
    mock.chat(X_Mock="completion_tokens=1000")
    assert mock.get("bill")["total"]["completion_tokens"] == 64
    mock.chat(X_Mock="completion_tokens=1000;over_max=1;no_usage=1")
    assert mock.get("bill")["total"]["completion_tokens"] == 1064


def open_stream(mock):
    """A stream that has sent its first event and takes seconds to the next."""
    body = json.dumps({**CHAT, "stream": True}).encode()
    head = b"POST /v1/chat/completions?gap_us=60000000 HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n"
    sock = mock.connect()
    sock.sendall(head % len(body) + body)
    read_until(sock, b'"content":"lorem"')
    return sock


@pytest.mark.parametrize(("setting", "tokens"), [("full", 42), ("sent", 1)])
def test_a_stream_that_the_client_cuts(mock, setting, tokens):
    mock.admin("settings", bill_on_disconnect=setting)
    sock = open_stream(mock)
    assert mock.get("bill")["total"]["calls"] == (1 if setting == "full" else 0)
    sock.close()
    mock.await_stats(disconnects=1)
    total = mock.get("bill")["total"]
    assert (total["calls"], total["prompt_tokens"], total["completion_tokens"]) == (1, 2, tokens)


@pytest.mark.parametrize(("setting", "calls"), [("full", 1), ("sent", 0)])
def test_a_client_that_leaves_before_the_answer(mock, setting, calls):
    mock.admin("settings", bill_on_disconnect=setting)
    with mock.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        sock.sendall(b"GET /anything?latency_us=60000000 HTTP/1.1\r\nHost: m\r\n\r\n")
        mock.await_stats(in_flight=1)
    mock.await_stats(disconnects=1, in_flight=0)
    assert mock.get("bill")["total"]["calls"] == calls


def test_sent_bills_what_went_out_before_the_provider_cut(mock):
    mock.admin("settings", bill_on_disconnect="sent")
    body = json.dumps({**CHAT, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n"
    head += b"X-Mock: cut_after_bytes=1500\r\n\r\n"
    words = mock.raw(head % len(body) + body).count(b'"delta":{"content":"')
    billed = mock.get("bill")["total"]["completion_tokens"]
    assert 0 < words <= billed <= words + 1 < 42  # the word that was cut through counts


def test_sent_bills_whole_answers_in_full(mock, openai_client):
    mock.admin("settings", bill_on_disconnect="sent")
    openai_client.chat.completions.create(**CHAT)
    list(openai_client.chat.completions.create(**CHAT, stream=True))
    assert mock.get("bill")["total"]["completion_tokens"] == 84


def test_reset_while_a_call_is_under_way(mock):
    mock.admin("settings", bill_on_disconnect="sent")
    sock = open_stream(mock)
    mock.admin("reset")
    sock.close()
    mock.await_stats(in_flight=0)
    assert mock.get("bill")["total"]["calls"] == 0  # of before the reset


def test_the_log(mock):
    before = time.monotonic_ns()
    mock.call("GET", "/status/404?key=abcdefgh")
    mock.call("PUT", "/anything/" + "x" * 300)
    mock.chat(Authorization="Bearer sk-secret-1234")
    log = mock.get("log?n=2")
    assert log["total"] == 3
    put, chat = log["requests"]
    assert put["path"].startswith("/anything/xxx")
    assert (chat["method"], chat["path"], chat["status"]) == ("POST", "/v1/chat/completions", 200)
    assert chat["credential_tail"] == "1234"
    assert before < put["start_ns"] < chat["start_ns"] < time.monotonic_ns()
    assert abs(chat["wall_ms"] - time.time() * 1000) < 60_000


def test_calls_in_flight_are_counted(mock):
    socks = [mock.connect() for _ in range(5)]
    for sock in socks:
        sock.sendall(b"GET /anything?latency_us=60000000 HTTP/1.1\r\nHost: m\r\n\r\n")
    mock.await_stats(in_flight=5, max_in_flight=5, requests=5)
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    mock.await_stats(in_flight=0, max_in_flight=5, disconnects=5)


# Any bytes at all must leave the server answering.
def test_random_bytes_do_no_harm(mock):
    seed = int(os.environ.get("PENSTOCK_SEED", time.time_ns()))
    print("seed", seed)
    rng = random.Random(seed)
    good = (
        b"POST /v1/messages?chunks=2 HTTP/1.1\r\nHost: m\r\nX-Mock: status=200\r\nContent-Length: 17\r\n\r\n"
        + (b'{"stream":true}  ')
    )
    for _ in range(300):
        data = bytearray(good * rng.randint(1, 3))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with mock.connect() as sock:
            sock.sendall(data[: rng.randint(1, len(data))])
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                read_all(sock)
    assert mock.chat()[0] == 200
