"""What the fault tests share: the failing machine, a load that remembers what it was told, and the books that
must agree afterwards."""

import http.client
import json
import os
import random
import struct
import subprocess
import threading
import urllib.request
from decimal import Decimal
from pathlib import Path

from harness import KEY, Gateway, configuration, nano, until

HERE = Path(__file__).resolve().parent
LONG = os.environ.get("PENSTOCK_LONG") == "1"
CREDIT = nano("0.001")
MOST_CREDITS = 10
ESTIMATE = CREDIT * MOST_CREDITS


def seed():
    """Of this run; PENSTOCK_SEED repeats one."""
    return int(os.environ.get("PENSTOCK_SEED", random.SystemRandom().randrange(2**32)))


def build_machine(folder):
    """The shared object that fails on purpose."""
    library = folder / "machine.so"
    subprocess.run(
        ["clang-19", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, HERE / "machine.c"], check=True
    )
    return library


class Clock:
    """The wall clock of processes that run with it."""

    def __init__(self, file):
        self.file = file
        self.set(0)

    def set(self, seconds):
        with open(self.file, "r+b" if self.file.exists() else "w+b") as out:
            out.write(struct.pack("<q", int(seconds * 10**9)))


def priced(mock, limit_usd=None, provider=None, **top):
    """Calls that cost 1 to 10 credits and are held at 10; a daily budget where there is a limit."""
    mock.prices(credit_nano_usd=CREDIT)
    fields = {
        "prices": {
            "units": [
                {
                    "name": "credits",
                    "pointer": "/billing/credits",
                    "usd_per_unit": "0.001",
                    "max_per_call": MOST_CREDITS,
                }
            ]
        },
        "circuit": {"min_calls": 1_000_000},
    }
    if limit_usd is not None:
        fields["budgets"] = [{"window": "monthly", "limit_usd": str(limit_usd)}]
    return configuration(mock, fields | (provider or {}), **{"log": {"calls": "none"}} | top)


def spent(port, name="mock", window="monthly"):
    """(settled and overrun, held) of a provider's budget in nano-dollars, as health shows them."""
    url = f"http://127.0.0.1:{port}/health/providers"
    with urllib.request.urlopen(url, timeout=10) as answer:
        budget = json.loads(answer.read(), parse_float=Decimal, parse_int=Decimal)["providers"][name][
            "budget"
        ]
    to_nano = lambda usd: int((usd * 10**9).to_integral_value())  # noqa: E731
    return to_nano(budget[f"{window}_spent_usd"]), to_nano(budget[f"{window}_held_usd"])


class Load:
    """Threads that call until they are told to stop. A call is answered (with what it cost), refused, or unanswered:
    the gateway died under it, and nobody can say."""

    def __init__(
        self, ports, threads=8, path="/p/mock/geocode?q=x&credits={credits}&latency_us=500", random_seed=0
    ):
        self.ports = list(ports)
        self.path = path
        self.lock = threading.Lock()
        self.cost = 0
        self.answered = 0
        self.refused = {}
        self.unanswered = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(random.Random(f"{random_seed} {n}"), n), daemon=True)
            for n in range(threads)
        ]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a call hangs"
        return self

    def _call(self, rng, number):
        connection = None
        while not self._stop.is_set():
            port = self.ports[number % len(self.ports)]
            try:
                if connection is None or connection.port != port:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                    connection.connect()
            except OSError:
                connection = None
                self._stop.wait(0.005)
                continue
            try:
                connection.request(
                    "GET",
                    self.path.format(credits=rng.randint(1, MOST_CREDITS)),
                    headers={"Authorization": f"Bearer {KEY}"},
                )
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection = None
                with self.lock:
                    self.unanswered += 1
                continue
            with self.lock:
                if answer.status == 200:
                    self.answered += 1
                    self.cost += nano(answer.headers["Penstock-Cost"])
                else:
                    reason = answer.headers.get("Penstock-Reason", str(answer.status))
                    self.refused[reason] = self.refused.get(reason, 0) + 1
            if answer.status != 200:
                self._stop.wait(0.005)  # a caller who is refused does not hammer


def quiet(mock, gateways="alive"):
    """Nothing is in flight at the provider any more: its bill is final. Of gateways that are dead it must also have read
    what they sent last, and so the end of their connections; the one that is left asks this."""

    def at_rest():
        stats = mock.stats()
        return stats["in_flight"] == 0 and (gateways == "alive" or stats["open_connections"] <= 1)

    until(at_rest)


def start(folder, config, machine=None, fault=None, clock=None, **options):
    """A gateway in `folder` (kept over restarts), on a machine that fails where one is given."""
    folder.mkdir(exist_ok=True)
    env = {}
    if machine:
        env["LD_PRELOAD"] = str(machine)
        env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    if fault:
        env["MACHINE_FAULT"] = fault
    if clock:
        env["MACHINE_CLOCK"] = str(clock.file)
    started.append(Gateway(folder, config, env=env, **options))
    return started[-1]


started = []  # by the test that runs: what it leaves behind is ended after it


def kill(gateway):
    gateway.process.kill()
    gateway.process.wait()
    gateway.process.stdout.close()
    gateway.client.close()
    gateway._stopped = True
