"""Message framing through the real gateway: what is ambiguous never reaches a provider, and what does
reach it is exactly one canonical request."""

import contextlib
import hashlib
import socket
from types import SimpleNamespace

import pytest
from raw_http import Closed, Malformed, Upstream, connect, ok

KEY = "pk_framing_0123456789abcdef"
AUTH = f"X-Penstock-Key: {KEY}\r\n".encode()
HEAD = b"Host: gateway\r\n" + AUTH
REFUSALS = {400, 414, 417, 431, 501, 505}
SMUGGLED = b"GET /p/origin/smuggled HTTP/1.1\r\n" + HEAD + b"\r\n"


@pytest.fixture
def framed(start_gateway):
    """A function that starts a scripted provider and a gateway in front of it; both end with the test."""
    upstreams = []

    def start(answer=None, on_head=None, listen=""):
        upstream = Upstream(answer, on_head)
        upstreams.append(upstream)
        gateway = start_gateway(f"""
listen:
  address: 127.0.0.1:0
{listen}
inbound:
  limit: 100000/minute
providers:
  origin:
    base_url: http://127.0.0.1:{upstream.port}
    allow_private: true
    retry:
      max_attempts: 1
    circuit:
      min_calls: 1000000
consumers:
  tester: {{}}
keys:
  tester:
    consumer: tester
    hash: sha256:{hashlib.sha256(KEY.encode()).hexdigest()}
""")
        return SimpleNamespace(
            upstream=upstream,
            port=gateway.port,
            connect=lambda: connect(gateway.port),
            targets=lambda: [request.target for request in upstream.requests],
        )

    yield start
    for upstream in upstreams:
        upstream.close()
        assert upstream.faults == []


def get(path=b"/", fields=b"", version=b"1.1", method=b"GET"):
    return method + b" /p/origin" + path + b" HTTP/" + version + b"\r\n" + HEAD + fields + b"\r\n"


def post(body, path=b"/", fields=b""):
    return get(path, b"Content-Length: %d\r\n" % len(body) + fields, method=b"POST") + body


def check_trick(gateway, raw):
    """What went wrong, or None: refused and the connection closed, or exactly one request upstream."""
    before = len(gateway.upstream.requests)
    with gateway.connect() as client:
        client.send(raw)
        client.socket.shutdown(socket.SHUT_WR)
        try:
            response = client.response()
        except (Closed, Malformed) as error:
            return f"no response: {error!r}"
        refused = response.status in REFUSALS
        if refused and not client.is_closed():
            return f"{response.status}, but the connection went on"
        if refused and response.get("Connection") != "close":
            return f"{response.status} without Connection: close"
        if not refused:
            client.rest()
    with gateway.connect() as probe:  # what the trick sent upstream has come before the answer to this
        probe.send(get(b"/probe"))
        if probe.response().body != b"ok":
            return "the next caller got another answer"
    seen = [request.target for request in gateway.upstream.requests[before:]]
    if seen != (["/probe"] if refused else ["/trick", "/probe"]):
        return f"{response.status}, and upstream saw {seen}"
    return None


def check_tricks(gateway, tricks):
    faults = {}
    for raw in tricks:
        if fault := check_trick(gateway, raw):
            faults[raw] = fault
    assert faults == {}


def trick(line, body=b"0\r\n\r\n" + SMUGGLED):
    return get(b"/trick", line + b"\r\n", method=b"POST") + body


def test_tricks_with_content_length_never_smuggle(framed):
    values = [
        b"0_2e",
        b"+1",
        b"-1",
        b"0x",
        b"0x10",
        b"",
        b" ",
        b"1,1",
        b"1, 1",
        b"5 5",
        b"5;a",
        b"5.0",
        b"1e1",
        b'"5"',
        b"\xb2",
    ]
    values += [
        b"18446744073709551616",
        b"18446744073709551621",
        b"9223372036854775808",
        b"4294967301" * 4,
        b"5\x00",
        b"5\x0b",
    ]
    values += [
        b"\x0b5",
        b"5\r\nContent-Length: 5",
        b"5\r\nContent-Length: 0",
        b"0\r\ncontent-length: 5",
        b"a",
        b"\xa05",
    ]
    tricks = [trick(b"Content-Length: " + value) for value in values]
    tricks += [trick(b"Content-Length : 34"), trick(b"Content-Length\t: 5"), trick(b"Content-Length\x00: 5")]
    tricks += [
        trick(b"Content-Length:\r\n 5"),
        trick(b"Content\rLength: 5"),
        trick(b"Content_Length: 5", b""),
    ]
    check_tricks(framed(), tricks)


def test_tricks_with_transfer_encoding_never_smuggle(framed):
    values = [
        b",chunked",
        b"chunked,",
        b"\xa0chunked",
        b"chunked\xa0",
        b"\x0bchunked",
        b"chunked\x0c",
        b"chunked\x00",
        b"xchunked",
    ]
    values += [
        b"chunked, chunked",
        b"chunked, identity",
        b"identity",
        b"identity, chunked",
        b"gzip",
        b"gzip, chunked",
        b"chunked, gzip",
    ]
    values += [
        b"chunked;a=b",
        b'"chunked"',
        b"'chunked'",
        b"chunked chunked",
        b"",
        b"cow",
        b"chunked\r\nTransfer-Encoding: chunked",
    ]
    values += [
        b"chunked\r\nTransfer-Encoding: cow",
        b"cow\r\nTransfer-Encoding: chunked",
        b"chunked\r\nContent-Length: 5",
    ]
    tricks = [trick(b"Transfer-Encoding: " + value) for value in values]
    tricks += [
        trick(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        trick(b"Transfer-Encoding : chunked"),
    ]
    tricks += [
        trick(b"Content-Length: 5\r\nTransfer-Encoding: identity"),
        trick(b" Transfer-Encoding: chunked"),
    ]
    tricks += [
        trick(b"Transfer-Encoding:\r\n chunked"),
        trick(b"X: a\r\n\tTransfer-Encoding: chunked"),
        trick(b"Transfer_Encoding: chunked", b""),
    ]
    tricks += [trick(b"X: a\rTransfer-Encoding: chunked"), trick(b"X: a\nTransfer-Encoding: chunked")]
    tricks += [trick(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1)]
    check_tricks(framed(), tricks)


def test_tricks_with_lines_and_names_are_refused(framed):
    lines = [
        b"X: a\rX: b",
        b"X: a\r",
        b"\rX: a",
        b"X: a\nX: b",
        b"X: a\x00b",
        b"X\x00: a",
        b"X: a\r\n b",
        b" X: a",
        b"X",
        b": a",
        b"X Y: a",
    ]
    lines += [b"X(: a", b"X\xe9: a", b"X: a\x7f", b"X: a\x01", b"Host: other", b"Expect: cow"]
    tricks = [trick(line, b"") for line in lines]
    tricks += [
        b"GET /p/origin/trick HTTP/1.1\n" + HEAD + b"\r\n",
        b"GET /p/origin/trick HTTP/1.1\r\n" + AUTH + b"\r\n",
    ]
    tricks += [
        b"GET /p/origin/trick HTTP/1.1\r\n " + HEAD + b"\r\n",
        b"\r\n\r\n" + get(b"/trick"),
        b"\n" + get(b"/trick"),
    ]
    tricks += [
        b"GET /p/origin/trick HTTP/1.1\r\nHost: " + host + b"\r\n" + AUTH + b"\r\n"
        for host in (b"", b"a,b", b"a b", b"u@a", b"a:x")
    ]
    faults = {}
    gateway = framed()
    for raw in tricks:
        fault = check_trick(gateway, raw)
        if fault or any(target == "/trick" for target in gateway.targets()):
            faults[raw] = fault or "it was taken"
        gateway.upstream.requests.clear()
    assert faults == {}


def test_request_lines_that_are_not_canonical_are_refused(framed):
    gateway = framed()
    statuses = {
        b"GET  /p/origin/ HTTP/1.1": 400,
        b"GET /p/origin/ HTTP/1.1 ": 400,
        b"GET /p/origin/": 400,
        b"GET /p/origin/ http/1.1": 400,
        b"GET /p/origin/ HTTP/2.0": 505,
        b"GET /p/origin/ HTTP/1.2": 505,
        b"PRI * HTTP/2.0": 505,
        b"GET /p/origin/a b HTTP/1.1": 400,
        b"GET /p/origin/#a HTTP/1.1": 400,
        b"GET /p/origin/\xc3\xa9 HTTP/1.1": 400,
        b"GET p/origin/ HTTP/1.1": 400,
        b"GET * HTTP/1.1": 400,
        b"CONNECT origin:443 HTTP/1.1": 400,
        b"G\x01T /p/origin/ HTTP/1.1": 400,
        b"A" * 33 + b" /p/origin/ HTTP/1.1": 501,
    }
    seen = {}
    for line in statuses:
        with gateway.connect() as client:
            client.send(line + b"\r\n" + HEAD + b"\r\n")
            seen[line] = client.response().status
            assert client.is_closed(), line
    assert seen == statuses
    assert gateway.targets() == []


def test_bytes_that_are_not_http_are_refused_at_once(framed):
    with framed().connect() as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert client.response().status == 400
        assert client.is_closed()


def test_heads_above_the_limit_are_refused(framed):
    gateway = framed(listen="  max_header: 4KiB")
    for raw, status in [
        (b"GET /" + b"a" * 5000, 414),
        (get(fields=b"X: " + b"a" * 5000), 431),
        (get(fields=b"X: a\r\n" * 250), 431),
    ]:
        with gateway.connect() as client:
            client.send(raw)
            assert client.response().status == status
            assert client.is_closed()
    assert gateway.targets() == []


def test_chunk_tricks_do_not_reach_the_provider_whole(framed):
    """The head may have gone on before the fault shows; then the provider must see the request break off."""
    complete = []
    gateway = framed(lambda request, stream: complete.append(request.target) or stream.send(ok()) or True)
    gateway.upstream.expects_cuts = True
    for body in [
        b"+5\r\nhello",
        b"0x5\r\nhello",
        b"5 \r\nhello",
        b" 5\r\nhello",
        b"5\nhello",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n",
    ]:
        for broken in (body, b"1\r\na\r\n" + body):
            with gateway.connect() as client:
                client.send(
                    get(b"/trick", b"Transfer-Encoding: chunked\r\n", method=b"POST")
                    + broken
                    + b"\r\n0\r\n\r\n"
                    + SMUGGLED
                )
                assert client.response().status == 400, broken
                assert client.is_closed()
    assert complete == []


def test_pipelined_requests_are_answered_in_order(framed):
    gateway = framed(lambda request, stream: stream.send(ok(request.target.encode() + request.body)) or True)
    with gateway.connect() as client:
        chunked = get(b"/c", b"Transfer-Encoding: chunked\r\n", method=b"POST") + b"3\r\nccc\r\n0\r\n\r\n"
        client.send(get(b"/a") + post(b"bbb", b"/b") + chunked + b"\r\n" + get(b"/d"))
        assert [client.response().body for _ in range(4)] == [b"/a", b"/bbbb", b"/cccc", b"/d"]
    assert gateway.targets() == ["/a", "/b", "/c", "/d"]


def test_expect_continue_is_answered_before_the_body_is_sent(framed):
    gateway = framed()
    with gateway.connect() as client:
        client.send(get(b"/e", b"Expect: 100-continue\r\nContent-Length: 5\r\n", method=b"POST"))
        assert client.response().status == 100
        client.send(b"hello")
        assert client.response().body == b"ok"
        client.send(get(b"/again"))
        assert client.response().status == 200
    assert gateway.upstream.requests[0].body == b"hello"


def test_a_body_above_the_limit_is_refused_before_it_is_sent(framed):
    gateway = framed(listen="  max_body: 1KiB")
    with gateway.connect() as client:
        client.send(get(fields=b"Expect: 100-continue\r\nContent-Length: 2000\r\n", method=b"POST"))
        assert client.response().status == 413  # not 100
        assert client.is_closed()
    with gateway.connect() as client:
        client.send(get(fields=b"Content-Length: 2000\r\n", method=b"POST"))
        assert client.response().status == 413
    assert gateway.targets() == []


def test_a_chunked_body_above_the_limit_is_refused(framed):
    gateway = framed(listen="  max_body: 1KiB")
    gateway.upstream.expects_cuts = True  # the provider may have seen its beginning
    with gateway.connect() as client:
        client.send(
            get(fields=b"Transfer-Encoding: chunked\r\n", method=b"POST")
            + b"800\r\n"
            + b"a" * 2048
            + b"\r\n0\r\n\r\n"
        )
        assert client.response().status == 413


def test_head_has_the_length_and_no_body(framed):
    def answer(request, stream):
        body = b"" if request.start.startswith(b"HEAD") else b"hello"
        stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)
        return True

    with framed(answer).connect() as client:
        client.send(get(method=b"HEAD") + get())
        response = client.response(to_head=True)
        assert (response.status, response.get("Content-Length"), response.body) == (200, "5", b"")
        assert client.response().body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_keep_the_connection(framed, status):
    gateway = framed(
        lambda request, stream: stream.send(b'HTTP/1.1 %d X\r\nETag: "a"\r\n\r\n' % status) or True
    )
    with gateway.connect() as client:
        for _ in range(2):
            client.send(get())
            response = client.response()
            assert (response.status, response.get("Content-Length"), response.chunked) == (
                status,
                None,
                False,
            )


def test_chunked_bodies_pass_both_ways_byte_for_byte(framed):
    body = bytes(range(256)) * 300

    def answer(request, stream):
        stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(request.body), 7001):
            piece = request.body[at : at + 7001]
            stream.send(b"%X;ext=1\r\n%s\r\n" % (len(piece), piece))
        stream.send(b"0\r\n\r\n")
        return True

    gateway = framed(answer)
    with gateway.connect() as client:
        client.send(get(fields=b"Transfer-Encoding: chunked\r\n", method=b"POST"))
        for at in range(0, len(body), 997):
            piece = body[at : at + 997]
            client.send(b"%x\r\n" % len(piece))
            client.send(piece + b"\r\n")
        client.send(b"000\r\n\r\n")
        response = client.response()
        assert response.chunked
        assert response.body == body
        client.send(get(b"/next"))
        assert client.response().status == 200
    assert gateway.upstream.requests[0].body == body


def test_trailers_pass_but_not_those_that_steer(framed):
    def answer(request, stream):
        stream.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\n"
        )
        stream.send(b"X-Sum: 7\r\nContent-Length: 99\r\nSet-Cookie: a\r\nPenstock-Cost: 0\r\n\r\n")
        return True

    with framed(answer).connect() as client:
        client.send(get(fields=b"TE: trailers\r\nConnection: TE\r\n"))
        response = client.response()
        assert response.body == b"ok"
        assert response.trailers == [(b"X-Sum", b"7")]


def test_request_trailers_do_not_disturb_the_connection(framed):
    gateway = framed()
    with gateway.connect() as client:
        client.send(get(b"/t", b"Transfer-Encoding: chunked\r\n", method=b"POST"))
        client.send(b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: b\r\n\r\n" + get(b"/next"))
        assert [client.response().status for _ in range(2)] == [200, 200]
    assert gateway.targets() == ["/t", "/next"]
    first = gateway.upstream.requests[0]
    assert first.body == b"hi"
    assert {name.lower() for name, _ in first.trailers} <= {b"x-sum"}


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_interim_responses_are_passed_on(framed):
    gateway = framed(lambda request, stream: stream.send(HINTS + HINTS + ok()) or True)
    with gateway.connect() as client:
        client.send(get())
        hints = [client.response(), client.response()]
        assert [(hint.status, hint.get("Link")) for hint in hints] == [(103, "</a>")] * 2
        assert client.response().body == b"ok"


def test_interim_responses_are_kept_from_http_1_0_clients(framed):
    gateway = framed(lambda request, stream: stream.send(HINTS + ok()) or True)
    with gateway.connect() as client:
        client.send(get(version=b"1.0"))
        assert client.response().body == b"ok"
        assert client.is_closed()


def test_http_1_0_clients_get_no_chunks(framed):
    """Too much to be collected first: only the end of the connection can tell them the end of the body."""
    body = bytes(range(256)) * 2000

    def answer(request, stream):
        stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 10_000):
            piece = body[at : at + 10_000]
            stream.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        stream.send(b"0\r\n\r\n")
        return True

    with framed(answer).connect() as client:
        client.send(get(version=b"1.0", fields=b"Connection: keep-alive\r\n"))
        response = client.response()
        assert not response.chunked
        assert response.body == body
        assert client.is_closed()


def test_http_1_0_clients_may_keep_the_connection(framed):
    with framed().connect() as client:
        for _ in range(2):
            client.send(get(version=b"1.0", fields=b"Connection: keep-alive\r\n"))
            response = client.response()
            assert (response.body, response.get("Connection").lower()) == (b"ok", "keep-alive")
        client.send(get(version=b"1.0"))
        assert client.response().body == b"ok"
        assert client.is_closed()


def test_connection_close_is_obeyed(framed):
    with framed().connect() as client:
        client.send(get(fields=b"Connection: x, Close\r\n") + get(b"/never"))
        response = client.response()
        assert (response.body, response.get("Connection").lower()) == (b"ok", "close")
        assert client.is_closed()


def test_a_half_closed_client_gets_its_answer(framed):
    with framed().connect() as client:
        client.send(post(b"hello"))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.response().body == b"ok"
        assert client.is_closed()


def test_a_client_that_sends_single_bytes_is_understood(framed):
    gateway = framed()
    raw = (
        get(b"/slow", b"Transfer-Encoding: chunked\r\n", method=b"POST")
        + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    )
    with gateway.connect() as client:
        for at in range(len(raw)):
            client.send(raw[at : at + 1])
        assert client.response().body == b"ok"
        client.send(get(b"/next"))
        assert client.response().status == 200
    assert gateway.targets() == ["/slow", "/next"]
    assert gateway.upstream.requests[0].body == b"abcde"


def test_an_answer_before_the_end_of_the_body_is_passed_on(framed):
    """A provider that refuses on the head alone: the caller gets the refusal, not a broken pipe."""
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    gateway = framed(
        answer=lambda request, stream: stream.rest() and False,
        on_head=lambda request, stream: stream.send(early),
    )
    with gateway.connect() as client:
        client.send(get(fields=b"Content-Length: 10000000\r\n", method=b"POST") + b"a" * 1000)
        response = client.response()
        assert (response.status, response.body) == (413, b"big")


def test_interim_responses_while_the_body_is_sent_do_not_end_it(framed):
    """103 on the head alone is no answer: the rest of the body must still go up, and the answer come down."""
    gateway = framed(
        answer=lambda request, stream: stream.send(ok(b"%d" % len(request.body))) or True,
        on_head=lambda request, stream: (stream.send(HINTS), True)[1],
    )
    with gateway.connect() as client:
        client.send(get(fields=b"Content-Length: 300000\r\n", method=b"POST") + b"a" * 1000)
        assert client.response().status == 103  # before the body is complete
        client.send(b"a" * 299_000)
        assert client.response().body == b"300000"
        client.send(get(b"/next", b"Content-Length: 0\r\n"))
        assert client.response().status == 103
        assert client.response().body == b"0"


BROKEN = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nok",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: a\x00\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n",
    b"",
]


def test_broken_answers_become_502_and_their_connection_is_not_used_again(framed):
    broken = []
    connections = []

    def answer(request, stream):
        connections.append(stream)
        stream.send(broken[-1] if request.target == "/broken" else ok())
        return request.target != "/broken" or broken[-1] != b""

    gateway = framed(answer)
    for raw in BROKEN:
        broken.append(raw)
        with gateway.connect() as client:
            client.send(get(b"/broken"))
            assert client.response().status == 502, raw
            client.send(get(b"/fine"))
            assert client.response().body == b"ok", raw
        assert connections[-1] is not connections[-2], raw


def test_a_body_that_breaks_off_is_not_made_whole(framed):
    answers = {
        "/length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "/bad": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n+2\r\nde\r\n0\r\n\r\n",
    }
    gateway = framed(lambda request, stream: stream.send(answers[request.target]))
    for path in answers:
        with gateway.connect() as client:
            client.send(get(path.encode()))
            with contextlib.suppress(Closed):
                assert client.response().status == 502, path  # where nothing had been passed on yet


def test_what_a_provider_sends_beyond_its_answer_reaches_nobody(framed):
    gateway = framed(lambda request, stream: stream.send(ok(request.target.encode()) + ok(b"poison")) or True)
    with gateway.connect() as client:
        for path in (b"/1", b"/2", b"/3"):
            client.send(get(path))
            assert client.response().body == path


def test_an_answer_without_a_length_ends_with_its_connection(framed):
    gateway = framed(lambda request, stream: stream.send(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    with gateway.connect() as client:
        for _ in range(2):
            client.send(get())
            response = client.response()
            assert response.chunked
            assert response.body == b"all of it"


def test_hop_by_hop_fields_end_here(framed):
    def answer(request, stream):
        hops = (
            b"Connection: x-up, keep-alive",
            b"X-Up: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: a",
            b"X-End: 1",
        )
        stream.send(ok(b"ok", *hops))
        return True

    gateway = framed(answer)
    hops = b"Connection: x-secret, Host\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n"
    hops += b"Proxy-Authorization: a\r\nProxy-Connection: b\r\n"
    with gateway.connect() as client:
        client.send(get(fields=hops + b"X-End: 1\r\n"))
        response = client.response()
    gone = {
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-connection",
        b"upgrade",
        b"x-secret",
        b"x-up",
        b"x-penstock-key",
    }
    for message in (gateway.upstream.requests[0], response):
        assert gone.isdisjoint(name.lower() for name, _ in message.fields)
        assert message.get("X-End") == "1"


def test_an_absolute_target_reaches_the_configured_provider_only(framed):
    gateway = framed()
    with gateway.connect() as client:
        client.send(b"GET http://elsewhere.invalid/p/origin/a?b HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert client.response().status == 200
    assert gateway.targets() == ["/a?b"]
    assert gateway.upstream.requests[0].get("Host") == f"127.0.0.1:{gateway.upstream.port}"
