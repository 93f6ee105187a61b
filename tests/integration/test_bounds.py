"""Everything is bounded: time to send, sizes, connections, memory; and where a call may go at all."""

import contextlib
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
import time

import httpx
import pytest
from harness import KEY, PENSTOCK, configuration, until, upstream
from raw_http import Closed, Stream, Upstream, connect, ok

MIB = 1 << 20
AUTH = f"Host: g\r\nX-Penstock-Key: {KEY}\r\n"


def has_sanitizer():
    with open(PENSTOCK, "rb") as binary:
        return b"__asan_init" in binary.read()


def little_quarantine():
    """The address sanitizer keeps freed memory for a while, which would look as if the gateway did."""
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"ASAN_OPTIONS": f"{options}:quarantine_size_mb=4"}


def listening(**fields):
    return {"listen": {"address": "127.0.0.1:0"} | fields}


def get(path="/p/mock/anything", lines=""):
    return f"GET {path} HTTP/1.1\r\n{AUTH}{lines}\r\n".encode()


def timed(function):
    began = time.monotonic()
    result = function()
    return result, time.monotonic() - began


# --- time ---


def test_a_slow_header_is_cut_with_408(start_gateway, mock):
    gateway = start_gateway(configuration(mock, **listening(header_timeout="300ms")))
    with connect(gateway.port) as client:
        client.send(b"GET /p/mock/anything HTTP/1.1\r\nHost: g\r\nX-Slow: ")
        stop = threading.Event()

        def trickle():  # a byte now and then does not extend the time
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    client.send(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            response, took = timed(client.response)
        finally:
            stop.set()
            thread.join()
        assert response.status == 408
        assert response.get("Penstock-Reason") == "caller_invalid"
        assert response.get("Connection") == "close"
        assert 0.2 < took < 2


def test_an_idle_connection_ends(start_gateway, mock):
    gateway = start_gateway(configuration(mock, **listening(idle_timeout="200ms")))
    with connect(gateway.port) as fresh, connect(gateway.port) as used:
        used.send(get())
        assert used.response().status == 200
        for client in (fresh, used):
            closed, took = timed(client.is_closed)
            assert closed
            assert took < 2
    until(lambda: gateway.metric("penstock_connections", side="downstream") <= 1)  # that of this question


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_slow_body_is_cut_with_408(start_gateway, mock, size):
    """Small ones are read before the provider is called, large ones pass while they come."""
    gateway = start_gateway(configuration(mock, **listening(body_timeout="300ms")))
    with connect(gateway.port) as client:
        client.send(f"POST /p/mock/anything HTTP/1.1\r\n{AUTH}Content-Length: {size}\r\n\r\nabc".encode())
        response, took = timed(client.response)
        assert response.status == 408
        assert client.is_closed()
        assert 0.2 < took < 3
    assert gateway.provider()["in_flight"] == 0
    assert [entry["status"] for entry in mock.log()] in ([], [0])


# --- memory ---


def test_a_client_that_reads_nothing_costs_no_memory_and_is_cut(start_gateway, mock):
    config = configuration(mock, {"on_disconnect": "cancel"}, **listening(write_timeout="1s"))
    gateway = start_gateway(config, env=little_quarantine())
    assert gateway.get("/p/mock/bytes/1000000").status_code == 200
    before = gateway.rss()
    readers = [connect(gateway.port) for _ in range(4)]
    for reader in readers:
        reader.send(get("/p/mock/bytes/200000000"))
    until(lambda: gateway.provider()["in_flight"] == 4)
    most = 0
    began = time.monotonic()
    while gateway.provider()["in_flight"]:
        most = max(most, gateway.rss())
        assert time.monotonic() - began < 8
    assert most - before < (48 if has_sanitizer() else 16) * MIB
    lines = gateway.calls(4, reason="caller_cancelled")
    assert len(lines) == 4
    for reader in readers:
        assert len(reader.rest()) < 100 * MIB
        reader.close()
    until(lambda: mock.stats()["in_flight"] == 0)


def test_a_slow_provider_takes_large_bodies_without_memory(start_gateway, mock):
    """The other direction: a provider that reads nothing holds the caller back, not the gateway's memory."""
    hold = threading.Event()
    provider = Upstream(on_head=lambda request, stream: hold.wait(20) and False)
    provider.expects_cuts = True
    try:
        fields = {"base_url": f"http://127.0.0.1:{provider.port}"}
        config = configuration(mock, fields, **listening(max_body="1GiB"))
        gateway = start_gateway(config, env=little_quarantine())
        before = gateway.rss()
        with connect(gateway.port) as client:
            client.send(f"POST /p/mock/ HTTP/1.1\r\n{AUTH}Content-Length: 200000000\r\n\r\n".encode())
            client.socket.setblocking(False)
            sent = 0
            block = bytes(MIB)
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < 0.5:
                try:
                    sent += client.socket.send(block)
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    time.sleep(0.01)
            assert sent < 50 * MIB  # what the kernel's buffers hold on both sides
            assert gateway.rss() - before < (64 if has_sanitizer() else 16) * MIB
    finally:
        hold.set()
        provider.close()


@pytest.mark.parametrize("read_first", [False, True], ids=["streamed", "whole"])
def test_an_answer_is_heard_while_its_provider_takes_no_more_of_the_body(start_gateway, mock, read_first):
    """The provider refuses on the head alone and reads nothing: whoever insists on sending first waits for ever."""
    hold = threading.Event()
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
    provider = Upstream(on_head=lambda request, stream: stream.send(refusal) or (hold.wait(20) and False))
    provider.expects_cuts = True
    try:
        fields = {"base_url": f"http://127.0.0.1:{provider.port}"}
        if read_first:
            fields["prices"] = {"default_model": {"input_usd_per_million": 1, "output_usd_per_million": 1}}
        gateway = start_gateway(configuration(mock, fields))
        body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"%s"}]}' % (
            b"a" * 20_000_000
        )
        head = f"POST /p/mock/ HTTP/1.1\r\n{AUTH}Content-Length: {len(body)}\r\n\r\n".encode()
        with connect(gateway.port) as client:

            def send():
                with contextlib.suppress(OSError):
                    client.send(head + body)

            sender = threading.Thread(target=send)
            sender.start()
            response = client.response()
            assert (response.status, response.body) == (413, b"big")
            client.socket.shutdown(socket.SHUT_RDWR)
            sender.join()
        until(lambda: gateway.provider()["in_flight"] == 0)
        until(lambda: gateway.metric("penstock_connections", side="upstream") == 0)  # it is not used again
    finally:
        hold.set()
        provider.close()


def test_10_000_pipelined_requests(start_gateway, mock):
    gateway = start_gateway(configuration(mock, log={"calls": "none"}), env=little_quarantine())
    count = 10_000
    before = gateway.rss()
    with connect(gateway.port) as client:
        sender = threading.Thread(target=lambda: client.send(get("/p/mock/bytes/3") * count))
        sender.start()
        for _ in range(count):
            response = client.response()
            assert (response.status, response.body) == (200, b"abc")
        sender.join()
    assert mock.stats()["requests"] == count
    assert gateway.rss() - before < (64 if has_sanitizer() else 16) * MIB


# --- sizes and numbers ---


def test_bodies_above_the_limit_get_413(start_gateway, mock):
    gateway = start_gateway(configuration(mock, **listening(max_body="100KiB")))
    assert gateway.post("/p/mock/anything", content=b"a" * 102_400).json()["body_length"] == 102_400
    refused = gateway.post("/p/mock/anything", content=b"a" * 102_401)
    assert (refused.status_code, refused.headers["Penstock-Reason"]) == (413, "caller_invalid")
    with connect(gateway.port) as client:  # a chunked one is found out on its way
        client.send(f"POST /p/mock/anything HTTP/1.1\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(3):
                client.send(b"a000\r\n" + b"a" * 0xA000 + b"\r\n")
        assert client.response().status == 413
    assert gateway.provider()["in_flight"] == 0


def test_connections_above_the_limit_are_closed_at_once(start_gateway, mock):
    gateway = start_gateway(configuration(mock, **listening(max_connections=5)))
    held = []
    for _ in range(5):
        client = connect(gateway.port)
        client.send(get())
        assert client.response().status == 200
        held.append(client)
    with connect(gateway.port) as above:
        assert above.is_closed()
    held.pop().close()

    def gets_in():
        with connect(gateway.port) as client, contextlib.suppress(Closed, OSError):
            client.send(get())
            return client.response().status == 200

    until(gets_in)
    for client in held:
        client.send(get())
        assert client.response().status == 200
        client.close()


def test_heads_of_providers_are_bounded(start_gateway, mock):
    answer = start_gateway(configuration(mock)).get("/p/mock/anything?fault=huge_header")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_invalid_response")


# --- where calls may go ---


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]
)
def test_private_addresses_are_refused(start_gateway, mock, host):
    """Together with the file. Names that turn out to lead to one are refused when they are looked up."""
    config = configuration(mock)
    config["providers"]["mock"] = {"base_url": f"https://{host}:{mock.port}"}
    with pytest.raises(AssertionError, match="allow_private"):
        start_gateway(config)


def test_names_that_lead_to_private_addresses_are_refused(start_gateway, mock):
    name = socket.gethostname()
    if ipaddress.ip_address(socket.gethostbyname(name)).is_global:
        pytest.skip("this machine's name leads to a public address")
    config = configuration(mock)
    config["providers"]["mock"] = {"base_url": f"https://{name}:{mock.port}"}
    gateway = start_gateway(config)
    answer = gateway.get("/p/mock/anything")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")
    assert "not a public address" in gateway.calls()[0]["detail"]
    assert "address" not in answer.text  # what stands behind a name is the operator's business


def test_the_callers_host_decides_nothing(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    with connect(gateway.port) as client:
        client.send(get().replace(b"Host: g", b"Host: 169.254.169.254"))
        assert client.response().status == 200
    assert gateway.get("/p/mock//169.254.169.254/x").status_code == 404  # a path of the provider, no more
    assert [entry["path"] for entry in mock.log()][-1] == "//169.254.169.254/x"


# --- TLS ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities, and a certificate of the first for `localhost` and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=server",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "names", "-out", "server.pem")  # fmt: skip
    return folder


def test_the_listener_serves_tls(start_gateway, mock, certificates):
    tls = {"certificate": str(certificates / "server.pem"), "key": str(certificates / "server.key")}
    gateway = start_gateway(configuration(mock, **listening(tls=tls, header_timeout="500ms")))
    assert gateway.url.startswith("https://")
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    with gateway.new_client(verify=context) as client:
        for _ in range(3):
            answer = client.post("/p/mock/anything", content=b"a" * 300_000)
            assert answer.json()["body_length"] == 300_000
        assert client.get("/p/mock/bytes/5000000").content == mock.call("GET", "/bytes/5000000")[2]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(gateway.url + "/health", trust_env=False, verify=ssl.create_default_context())
    with connect(gateway.port) as plain:  # who speaks no TLS is let go, in time and without harm
        plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        plain.rest()
    with connect(gateway.port) as silent:
        _, took = timed(silent.rest)
        assert took < 3


class TlsUpstream:
    """A provider behind TLS that answers with the name that it was asked for (SNI)."""

    def __init__(self, certificates):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self.names = []
        self.context.sni_callback = lambda connection, name, context: self.names.append(name)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.handshakes = 0
        self.requests = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, connection):
        with (
            contextlib.suppress(OSError, Closed),
            self.context.wrap_socket(connection, server_side=True) as wrapped,
        ):
            self.handshakes += 1
            stream = Stream(wrapped)
            while True:
                self.requests.append(stream.request())
                stream.send(ok(b"secure"))

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def tls_provider(certificates):
    provider = TlsUpstream(certificates)
    yield provider
    provider.close()


def tls_config(mock, provider, certificates, ca="ca.pem", host="localhost", **tls):
    return configuration(
        mock,
        {"base_url": f"https://{host}:{provider.port}", "tls": {"ca_file": str(certificates / ca)} | tls},
    )


def test_a_providers_certificate_is_verified(start_gateway, mock, certificates, tls_provider):
    gateway = start_gateway(tls_config(mock, tls_provider, certificates))
    for _ in range(3):
        assert gateway.get("/p/mock/x").content == b"secure"
    assert tls_provider.names == ["localhost"] * tls_provider.handshakes
    assert tls_provider.handshakes < 3  # kept
    assert tls_provider.requests[0].get("Host") == f"localhost:{tls_provider.port}"


def test_large_bodies_pass_through_tls_both_ways(start_gateway, mock, certificates, tls_provider):
    """What TLS says for itself after the handshake (session tickets) is no early answer."""
    config = tls_config(mock, tls_provider, certificates)
    config["providers"]["mock"]["timeouts"] = {"total": "5s"}
    gateway = start_gateway(config)
    with connect(gateway.port) as client:
        client.send(f"POST /p/mock/x HTTP/1.1\r\n{AUTH}Content-Length: 300000\r\n\r\n".encode())
        until(lambda: tls_provider.handshakes == 1)
        for _ in range(100):  # slowly, as it comes from afar
            client.send(b"a" * 3000)
            time.sleep(0.001)
        assert client.response().body == b"secure"
    assert gateway.post("/p/mock/x", content=b"a" * 5_000_000).content == b"secure"
    assert [len(request.body) for request in tls_provider.requests] == [300_000, 5_000_000]


def test_a_providers_address_is_verified_too(start_gateway, mock, certificates, tls_provider):
    gateway = start_gateway(tls_config(mock, tls_provider, certificates, host="127.0.0.1"))
    assert gateway.get("/p/mock/x").content == b"secure"
    assert tls_provider.names == [None]  # no name to ask for (RFC 6066 3)


@pytest.mark.parametrize(
    "wrong",
    [{"ca": "other.pem"}, {"server_name": "example.com"}, {"server_name": "127.0.0.2"}],
    ids=["authority", "name", "address"],
)
def test_a_certificate_that_is_not_the_providers_is_refused(
    start_gateway, mock, certificates, tls_provider, wrong
):
    gateway = start_gateway(tls_config(mock, tls_provider, certificates, **wrong))
    answer = gateway.get("/p/mock/x")
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")
    assert tls_provider.requests == []
    assert "TLS" in gateway.calls()[0]["detail"]


def test_without_a_ca_file_the_systems_authorities_decide(start_gateway, mock, certificates, tls_provider):
    config = configuration(mock, {"base_url": f"https://localhost:{tls_provider.port}"})
    assert start_gateway(config).get("/p/mock/x").status_code == 502
    assert tls_provider.requests == []


def test_a_provider_that_does_not_finish_its_handshake_is_left_in_time(start_gateway, mock):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        provider = upstream(
            mock, base_url=f"https://127.0.0.1:{silent.getsockname()[1]}", timeouts={"connect": "300ms"}
        )
        gateway = start_gateway(configuration(mock, providers={"mock": provider}))
        answer, took = timed(lambda: gateway.get("/p/mock/x"))
    assert (answer.status_code, answer.headers["Penstock-Reason"]) == (502, "provider_unreachable")
    assert took < 3
