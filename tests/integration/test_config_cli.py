"""The program from outside: its commands, a configuration that is taken whole or not at all (G11), start and end."""

import re
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest
from harness import (
    KEY,
    PENSTOCK,
    ROOT,
    Gateway,
    assert_no_sanitizer_report,
    configuration,
    key_hash,
    penstock,
    running,
    until,
)
from raw_http import Upstream, connect, ok

DATA = ROOT / "tests/integration/data"


# --- commands ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["serve", "check", "demo", "key", "version", "penstock demo"]),
        (["serve"], ["--config", "FILE", "SIGHUP"]),
        (["check"], ["--config", "FILE"]),
        (["demo"], ["--port", "--quiet"]),
        (["key"], ["new"]),
        (["key", "new"], ["hash"]),
        (["version"], ["version"]),
    ],
)
def test_help_reads_well(arguments, words):
    result = penstock(*arguments, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in words:
        assert word in result.stdout
    assert len(max(result.stdout.splitlines(), key=len)) <= 130


def test_version():
    version = (ROOT / "VERSION").read_text().strip()
    assert penstock("version").stdout == f"penstock {version}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["serve"], ["check", "--confg", "x"], ["demo", "--port", "x"]]
)
def test_wrong_arguments_are_told(arguments):
    result = penstock(*arguments)
    assert result.returncode not in (0, 1)
    assert "--help" in result.stderr


def test_key_new_makes_a_key_that_works(start_gateway, mock):
    output = penstock("key", "new").stdout
    key = re.search(r"^key: +(pk_\S+)$", output, re.M)[1]
    (hashed,) = set(re.findall(r"hash: (\S+)", output))
    assert len(key) >= 40
    assert hashed == key_hash(key)
    assert penstock("key", "new").stdout != output
    gateway = start_gateway(configuration(mock, keys={"fresh": {"consumer": "tester", "hash": hashed}}))
    with gateway.new_client(key) as client:
        assert client.get("/p/mock/anything").status_code == 200


# --- mistakes ---


def test_ten_mistakes_are_ten_errors_with_place_and_hint(tmp_path):
    file = DATA / "bad.yaml"
    result = penstock("check", "--config", str(file))
    assert result.returncode == 1
    assert result.stdout == ""
    *errors, count = result.stderr.splitlines()
    assert count == "10 mistakes"
    assert len(errors) == 10
    source = file.read_text().splitlines()
    wanted = {
        3: ("32kb", "32KiB"),
        7: ("limts", 'did you mean "limits"'),
        8: ("90000 tokens/minut", "minute"),
        9: ("many", "whole number"),
        10: ("9", "5"),
        11: ("PENSTOCK_TEST_UNSET_KEY", "environment"),
        14: ("opnai", 'did you mean "openai"'),
        17: ("research", "twice"),
        20: ("nobody", "consumer"),
        21: ("hash", "penstock key new"),
    }
    places = {}
    for error in errors:
        match = re.fullmatch(re.escape(str(file)) + r":(\d+):(\d+): (.+)", error)
        assert match, error
        line, column = int(match[1]), int(match[2])
        assert 1 <= column <= len(source[line - 1])
        assert not source[line - 1][: column - 1].endswith(" " * column)
        places[line] = match[3]
    assert sorted(places) == sorted(wanted)
    for line, words in wanted.items():
        for word in words:
            assert word in places[line], places[line]
    assert "a_key_itself" not in result.stderr  # it may be a real one


def test_check_accepts_the_example():
    env = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "GEOCODER_KEY": "c"}
    result = penstock("check", "--config", str(ROOT / "examples/penstock.yaml"), env=env)
    assert (result.returncode, result.stderr) == (0, "")
    assert "valid; 3 providers, 1 routes, 2 consumers, 2 keys" in result.stdout


@pytest.mark.parametrize("command", ["check", "serve"])
def test_files_that_cannot_be_read_are_told(tmp_path, command):
    for path in [tmp_path / "missing.yaml", tmp_path]:
        result = penstock(command, "--config", str(path))
        assert result.returncode == 1
        assert str(path) in result.stderr


def test_serve_refuses_a_bad_file(tmp_path):
    result = penstock("serve", "--config", str(DATA / "bad.yaml"))
    assert result.returncode == 1
    assert result.stderr.count("bad.yaml:") == 10
    assert result.stdout == ""


# --- reload ---


def test_a_bad_file_changes_nothing_and_every_mistake_is_logged(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    assert gateway.get("/p/mock/anything").status_code == 200
    gateway.reload((DATA / "bad.yaml").read_text(), expect="configuration refused")
    lines = gateway.await_log(10, message="configuration refused; the last good one keeps serving")
    assert len(lines) == 10
    assert {line["level"] for line in lines} == {"error"}
    assert all(re.search(r"penstock\.yaml:\d+:\d+: ", line["detail"]) for line in lines)
    assert gateway.get("/p/mock/anything").status_code == 200
    # And it can be mended.
    gateway.reload(configuration(mock, {"limits": "3/hour"}))  # a new limit counts the two that were
    assert [gateway.get("/p/mock/anything").status_code for _ in range(2)] == [200, 429]


def test_a_file_with_certificates_that_cannot_be_read_changes_nothing(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"limits": "100/hour"}))
    bad = configuration(mock, {"base_url": "https://127.0.0.1:1", "tls": {"ca_file": "missing.pem"}})
    gateway.reload(bad, expect="configuration")
    assert [line for line in gateway.log_lines() if line["level"] == "error"]
    assert gateway.get("/p/mock/anything").status_code == 200


def test_a_good_file_changes_providers_limits_and_keys_and_keeps_what_was_spent(start_gateway, mock):
    provider = {
        "prices": {"per_call_usd": "0.01"},
        "budgets": [{"window": "daily", "limit_usd": "0.03"}],
        "limits": "10/hour",
    }
    gateway = start_gateway(configuration(mock, provider))
    assert [gateway.get("/p/mock/anything").status_code for _ in range(2)] == [200] * 2
    keys = {
        "tester-1": {"consumer": "tester", "hash": key_hash(KEY), "revoked": True},
        "tester-2": {"consumer": "tester", "hash": key_hash("pk_second")},
    }
    gateway.reload(configuration(mock, provider | {"limits": "3/hour"}, keys=keys))
    until(lambda: gateway.get("/p/mock/anything").status_code == 401)  # each worker takes it for itself
    with gateway.new_client("pk_second") as client:
        until(lambda: client.get("/p/nobody/").status_code == 404)
        assert client.get("/p/mock/anything").status_code == 200
        refused = client.get("/p/mock/anything")
        assert refused.headers["Penstock-Reason"] in ("policy_rate_limited", "policy_budget_exceeded")
        larger = [{"window": "daily", "limit_usd": "0.04"}]
        gateway.reload(configuration(mock, provider | {"limits": "5/hour", "budgets": larger}, keys=keys))
        until(lambda: client.get("/p/mock/anything").status_code == 200)
        assert client.get("/p/mock/anything").headers["Penstock-Reason"] == "policy_budget_exceeded"
    assert gateway.provider()["budget"]["daily_spent_usd"] == 0.04
    assert len(mock.log()) == 4


def test_a_call_under_way_outlives_the_reload(start_gateway, mock):
    go_on = threading.Event()

    def answer(request, stream):
        stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        assert go_on.wait(10)
        stream.send(b"def")
        return True

    provider = Upstream(answer)
    try:
        gateway = start_gateway(configuration(mock, {"base_url": f"http://127.0.0.1:{provider.port}"}))
        with connect(gateway.port) as client:
            client.send(f"GET /p/mock/ HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n".encode())
            until(lambda: provider.requests)
            gateway.reload(
                configuration(mock, providers={"other": {"base_url": mock.url, "allow_private": True}})
            )
            config = configuration(mock)
            config["providers"] = {"other": config["providers"]["mock"]}
            gateway.reload(config)
            until(lambda: gateway.get("/p/other/anything").status_code == 200)
            go_on.set()
            assert client.response().body == b"abcdef"
    finally:
        provider.close()


def test_many_reloads_under_load(start_gateway, mock):
    """Calls never notice: no refusal, no cut, whatever generation serves them."""
    gateway = start_gateway(configuration(mock, log={"calls": "none"}))
    statuses, stop = [], threading.Event()

    def work():
        with gateway.new_client() as client:
            while not stop.is_set():
                statuses.append(client.get("/p/mock/anything").status_code)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            gateway.reload(configuration(mock, {"limits": f"{1000 + number}/1s"}, log={"calls": "none"}))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) > 50


# --- start and end ---


def test_the_first_call_is_answered_within_a_second_of_the_start(tmp_path, mock):
    began = time.monotonic()
    gateway = Gateway(tmp_path, configuration(mock))
    try:
        assert gateway.get("/p/mock/anything").status_code == 200
        assert time.monotonic() - began < 1
    finally:
        gateway.stop()


def test_a_port_in_use_is_told(tmp_path, mock, start_gateway):
    gateway = start_gateway(configuration(mock))
    with socket.create_server(("127.0.0.1", 0)) as server:
        for port in (server.getsockname()[1], gateway.port):  # another program's, and another Penstock's
            file = tmp_path / f"{port}.yaml"
            file.write_text(
                f"listen: {{address: '127.0.0.1:{port}'}}\nproviders: {{a: {{base_url: 'https://a.example'}}}}\n"
            )
            try:
                result = penstock("serve", "--config", str(file), timeout=5)
            except subprocess.TimeoutExpired:
                pytest.fail(f"two programs share port {port}")
            assert result.returncode == 1
            assert f"127.0.0.1:{port}" in result.stderr
            assert "Address already in use" in result.stderr


def test_sigterm_lets_a_running_call_finish(start_gateway, mock):
    go_on = threading.Event()

    def answer(request, stream):
        assert go_on.wait(10)
        stream.send(ok(b"whole"))
        return True

    provider = Upstream(answer)
    try:
        gateway = start_gateway(configuration(mock, {"base_url": f"http://127.0.0.1:{provider.port}"}))
        idle = connect(gateway.port)
        with connect(gateway.port) as client:
            client.send(f"GET /p/mock/ HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n".encode())
            until(lambda: provider.requests)
            gateway.process.send_signal(signal.SIGTERM)
            assert idle.is_closed()  # a connection without a call ends at once

            def refuses():
                try:
                    connect(gateway.port).close()
                except ConnectionRefusedError:
                    return True
                return False

            until(refuses)
            assert gateway.process.poll() is None
            go_on.set()
            response = client.response()
            assert (response.status, response.body) == (200, b"whole")
            assert response.get("Connection") == "close"
            assert client.is_closed()
        assert gateway.process.wait(timeout=5) == 0
        assert gateway.calls()[0]["status"] == 200  # what was decided last is logged too
    finally:
        go_on.set()
        provider.close()


def test_shutdown_has_a_bound(start_gateway, mock):
    gateway = start_gateway(
        configuration(mock, listen={"address": "127.0.0.1:0", "shutdown_timeout": "300ms"})
    )
    with connect(gateway.port) as client:
        request = f"GET /p/mock/drip/100000 HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n"
        client.send(request.encode())
        client.take(100)
        began = time.monotonic()
        gateway.stop()
        assert time.monotonic() - began < 3


def test_a_second_signal_ends_it_at_once(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    with connect(gateway.port) as client:
        request = f"GET /p/mock/drip/100000 HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n"
        client.send(request.encode())
        client.take(100)
        gateway.process.send_signal(signal.SIGINT)
        gateway.await_log(1, message="stopping")
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(timeout=2) == -signal.SIGINT
    gateway._stopped = True
    gateway.process.stdout.close()
    gateway.client.close()
    assert_no_sanitizer_report(gateway.stderr())


# --- the demo ---


def test_the_demo_works_as_printed_and_stops_within_two_seconds():
    with running([PENSTOCK, "demo", "--port", "0"]) as demo:
        printed = ""
        while "Ctrl-C stops." not in printed:
            line = demo.stdout.readline()
            assert line, demo.stderr.read()
            printed += line
        curl = re.search(r"^ *(curl .*)$", printed, re.M)[1]
        answer = subprocess.run(
            ["bash", "-c", curl], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        head, body = answer.split("\n\n", 1)
        assert head.startswith("HTTP/1.1 200 ")
        assert "\nPenstock-Cost: 0.005" in head
        assert '"results"' in body
        url = re.search(r"gateway +(http://\S+)", printed)[1]
        assert url in curl
        for path in re.findall(rf"{re.escape(url)}(/\S+)$", printed, re.M):
            assert httpx.get(url + path, trust_env=False).status_code == 200
        # The sample traffic comes by itself and reaches all three providers.
        until(
            lambda: httpx.get(url + "/metrics", trust_env=False).text.count("external_api_calls_total{") >= 3,
            20,
        )
        demo.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, stderr = demo.communicate(timeout=10)
        assert demo.returncode == 0
        assert time.monotonic() - began < 2
        assert_no_sanitizer_report(stderr)


def test_the_demo_tells_when_its_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = penstock("demo", "--port", str(server.getsockname()[1]), "--quiet")
    assert result.returncode == 1
    assert "Address already in use" in result.stderr
    assert "--port 0" in result.stderr
