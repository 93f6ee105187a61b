"""What the black-box tests run and talk to: the mock provider and the gateway as real processes, on free ports
of the loopback, and plain ways to ask both what they did."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
PENSTOCK = os.environ.get("PENSTOCK_BIN", str(ROOT / "build/dev/bin/penstock"))
MOCK_PROVIDER = os.environ.get("PENSTOCK_MOCK_PROVIDER", str(ROOT / "build/dev/bin/mock_provider"))
KEY = "pk_test_0123456789abcdef"
CREDENTIAL = "sk-provider-7777"
HELLO = [{"role": "user", "content": "hello"}]  # 5 bytes: 2 tokens to the mock
CHAT = {"model": "gpt-4o-mini", "messages": HELLO}
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|SUMMARY: \w+Sanitizer")


def until(condition, seconds=10):
    """Asks until the answer is true and returns it; a bound instead of a sleep."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.005)


def nano(usd):
    """A decimal text of USD, exactly, as a whole number of nano-dollars."""
    amount = Decimal(usd) * 10**9
    assert amount == int(amount), usd
    return int(amount)


def in_parallel(threads, count, function):
    """`count` calls of function(number) by so many threads that start together; the results by number."""
    barrier = threading.Barrier(threads)
    with concurrent.futures.ThreadPoolExecutor(threads, initializer=barrier.wait) as pool:
        return list(pool.map(function, range(count)))


def key_hash(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def read_all(sock):
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_until(sock, mark):
    got = b""
    while mark not in got:
        part = sock.recv(65536)
        assert part, got
        got += part
    return got


class Mock:
    """One running mock provider, and plain ways to talk to it."""

    def __init__(self, port):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method, path, body=None, **headers):
        """(status, headers, body) of one call on its own connection; a dict is sent and read as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            content = response.read()
            if response.headers.get("Content-Type") == "application/json" and content:
                content = json.loads(content)
            return response.status, response.headers, content
        finally:
            connection.close()

    def chat(self, **headers):
        return self.call("POST", "/v1/chat/completions", CHAT, **headers)

    def admin(self, what, **body):
        status, _, answer = self.call("POST", f"/_mock/{what}", body)
        assert status == 200, answer

    def get(self, what):
        return self.call("GET", f"/_mock/{what}")[2]

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, request):
        """All bytes that come back until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_all(sock)

    def await_stats(self, **wanted):
        """Asks until the counters are as wanted."""
        until(lambda: self._has(self.get("stats"), wanted))

    @staticmethod
    def _has(stats, wanted):
        return all(stats[key] == value for key, value in wanted.items())

    def script(self, match="/", times=-1, **rules):
        self.admin("script", match=match, rules=rules, times=times)

    def prices(self, **prices):
        self.admin("prices", **prices)

    def limits(self, **limits):
        self.admin("limits", **limits)

    def stats(self):
        return self.get("stats")

    def log(self, count=100_000):
        return self.get(f"log?n={count}")["requests"]

    def bill(self):
        """Of all callers: calls, tokens, credits and nano_usd."""
        return self.get("bill")["total"]

    def billed(self):
        return self.bill()["nano_usd"]


def start_mock(*options):
    process = subprocess.Popen([MOCK_PROVIDER, *options], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
    assert match, line
    return process, Mock(int(match[1]))


def stop_mock(process):
    process.terminate()
    process.stdout.close()
    assert process.wait(timeout=10) == 0


def configuration(mock, provider=None, **top):
    """The usual configuration: provider `mock`, one consumer with one key; `provider` and the rest are added."""
    config = {
        "listen": {"address": "127.0.0.1:0"},
        "inbound": {"limit": "1000000/minute"},
        "providers": {"mock": upstream(mock, **(provider or {}))},
        "consumers": {"tester": {}},
        "keys": {"tester-1": {"consumer": "tester", "hash": key_hash(KEY)}},
    }
    for name, value in top.items():
        if isinstance(value, dict) and isinstance(config.get(name), dict):
            config[name] = config[name] | value
        else:
            config[name] = value
    return config


def upstream(mock, **fields):
    """A provider that is the mock."""
    return {
        "base_url": mock.url,
        "allow_private": True,
        "credential": {"value": CREDENTIAL},
        "retry": {"max_attempts": 1},
    } | fields


class Gateway:
    """`penstock serve` with a file of its own; what it logs is kept."""

    def __init__(self, folder, config, env=None, binary=PENSTOCK):
        self.key = KEY
        self.file = folder / "penstock.yaml"
        self.write(config)
        self.stderr_file = folder / "stderr.log"
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                [binary, "serve", "--config", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | (env or {}),
            )
        self.stdout = self.process.stdout.readline()
        match = re.fullmatch(r"penstock \S+ listens on (https?)://\S+:(\d+)\n", self.stdout)
        if not match:
            self.process.wait(timeout=10)
            raise AssertionError(f"{self.stdout!r} {self.stderr()}")
        self.port = int(match[2])
        self.url = f"{match[1]}://127.0.0.1:{self.port}"
        self.client = self.new_client()
        self._stopped = False

    def write(self, config):
        if not isinstance(config, str):
            config = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False)  # copies: no aliases
        self.file.write_text(config)

    def new_client(self, key=KEY, **options):
        """An HTTP client with that key (none: without); its paths start behind the gateway's address."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options = {"timeout": 30, "trust_env": False, "limits": httpx.Limits(max_connections=None)} | options
        return httpx.Client(base_url=self.url, headers=headers, **options)

    def get(self, path, **options):
        return self.client.get(path, **options)

    def post(self, path, **options):
        return self.client.post(path, **options)

    def chat(self, **options):
        body = CHAT | options.pop("json", {})
        return self.client.post("/p/mock/v1/chat/completions", json=body, **options)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stderr(self):
        return self.stderr_file.read_text(errors="replace")

    def log_lines(self):
        """What it has logged so far; the last line may still be on its way."""
        lines = self.stderr().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def await_log(self, count=1, **wanted):
        """At least so many log lines with these fields; calls are logged after their answer."""

        def found():
            lines = [line for line in self.log_lines() if wanted.items() <= line.items()]
            return lines if len(lines) >= count else None

        return until(found)

    def calls(self, count=1, **wanted):
        """The log lines of calls, once there are so many."""
        return self.await_log(count, message="call", **wanted)

    def metrics(self):
        """{(name, ((label, value), ...)): Decimal}, labels sorted."""
        response = httpx.get(self.url + "/metrics", trust_env=False, timeout=20, verify=False)
        assert response.status_code == 200
        return parse_metrics(response.text)

    def metric(self, name, **labels):
        """The sum of the series of that name with these labels; 0 where there is none."""
        return sum(
            (
                value
                for (its, pairs), value in self.metrics().items()
                if its == name and labels.items() <= dict(pairs).items()
            ),
            Decimal(0),
        )

    def health(self, path="/health/providers"):
        return httpx.get(self.url + path, trust_env=False, timeout=20, verify=False).json()

    def provider(self, name="mock"):
        return self.health()["providers"][name]

    def reload(self, config, expect="configuration reloaded"):
        """Takes another configuration; returns when it logs what is expected of it."""
        before = len(self.log_lines())
        self.write(config)
        self.process.send_signal(signal.SIGHUP)
        return until(
            lambda: [line for line in self.log_lines()[before:] if line["message"].startswith(expect)]
        )

    def rss(self):
        """Resident bytes now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    def stop(self, seconds=15):
        """Ends it as an operator would; its exit code and the sanitizers must have nothing to say."""
        if self._stopped:
            return
        self._stopped = True
        self.client.close()
        self.process.terminate()
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it does not end within {seconds} s of SIGTERM") from None
        finally:
            self.stdout += self.process.stdout.read()
            self.process.stdout.close()
        assert_no_sanitizer_report(self.stderr())
        assert code == 0, self.stderr()[-4000:]


def assert_no_sanitizer_report(text):
    if match := SANITIZER.search(text):
        raise AssertionError(text[max(0, match.start() - 200) : match.start() + 8000])


SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text):
    samples = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = tuple(sorted(LABEL.findall(match[2] or "")))
        assert (match[1], labels) not in samples, line
        samples[match[1], labels] = Decimal(match[3])
    return samples


@contextlib.contextmanager
def running(command, env=None):
    """Any process, ended with the block if it still runs."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def penstock(*arguments, env=None, timeout=20):
    """One run of the program to its end."""
    return subprocess.run(
        [PENSTOCK, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | (env or {}),
        check=False,
    )
