#!/usr/bin/env python3
"""Measures Penstock beside other proxies in front of the mock provider: one proxy core, everything else on another.

Rounds are interleaved and each starts the proxies afresh; a ratio is always to nginx in the same stage of the same
round. What is compared is CPU per call: the load generator's core fills up too, so calls per second say less.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

import report
import streams

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
PROXY_CORE, LOAD_CORE = {0}, {1}
PATH = "/v1/chat/completions"
STREAMS, EVENTS, GAP_US, SPREAD_S, WAVES = 50, 50, 10_000, 0.25, 2
SLOW_US = 20_000  # the provider's time in the unsaturated stage
FOREIGN_LIMIT = (
    0.10  # of a core: more, used by others (interrupts look the same), and a run counts as disturbed
)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CHAT = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "Answer in one short paragraph. Give every figure with its unit."},
        {
            "role": "user",
            "content": "What does a proxy add to the time of a small HTTP request when both of its connections "
            "are kept open, and from which size of body on does that no longer matter to anyone?",
        },
    ],
    "temperature": 0.2,
    "max_tokens": 256,
    "user": "bench-0001",
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Program:
    """A child of ours in the foreground, on given cores; ended with the `with` block."""

    def __init__(self, name, command, cores, port, env=None):
        self.name, self.port = name, port
        self.log = OUT / f"{name}.log"
        os.sched_setaffinity(0, cores)  # what is started inherits it
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **(env or {})},
                )
        finally:
            os.sched_setaffinity(0, LOAD_CORE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_until_it_listens(self, pause_s=0.02):
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(pause_s)
        sys.exit(f"{self.name} does not listen on port {self.port}:\n{self.log.read_text()[-2000:]}")

    def pids(self):
        found, new = [], [self.process.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                new += map(int, (task / "children").read_text().split())
        return found

    def cpu_s(self):
        """CPU time of all its threads so far; schedstat counts nanoseconds, where /proc/PID/stat counts ticks."""
        tasks = [task for pid in self.pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def peak_mib(self):
        lines = [line for pid in self.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


class Proxy(Program):
    def __init__(self, name, upstream, options):
        port = free_port()
        path, headers, env = PATH, {"Authorization": "Bearer sk-mock"}, {}
        kind, _, variant = name.partition("+")
        config = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "penstock": "penstock.yaml"}.get(kind)
        values = {"PORT": port, "UPSTREAM": upstream.port, "OUT": OUT, "HASH": "", "MORE": ""}
        if kind == "penstock":
            data = OUT / f"data-{name}"
            shutil.rmtree(data, ignore_errors=True)  # each start has its own past: none
            values["MORE"] = (
                "ledger: {database: none}" if variant == "none" else f"ledger: {{directory: {data}}}"
            )
            if variant == "redis":
                values["MORE"] += f"\nstate: {{redis: 'redis://127.0.0.1:{options.redis_port}/1'}}"
            key, values["HASH"] = options.key
            path, headers = f"/p/mock{PATH}", {"Authorization": f"Bearer {key}"}
        if config:
            text = string.Template((HERE / "proxies" / config).read_text()).substitute(values)
            config = OUT / f"{name}-{config}"
            config.write_text(text)
        match kind:
            case "nginx":
                command = ["nginx", "-e", "stderr", "-p", OUT, "-c", config, "-g", "daemon off;"]
            case "haproxy":
                command = ["haproxy", "-db", "-f", config]
            case "penstock":
                command = [options.penstock, "serve", "--config", config]
            case "portkey":
                home = HERE / "npm/portkey"
                start = home / "node_modules/@portkey-ai/gateway/build/start-server.js"
                command = ["node", "-r", home / "loopback.cjs", start, "--headless", f"--port={port}"]
                env = {"NODE_ENV": "production"}
                headers["x-portkey-provider"] = "openai"
                headers["x-portkey-custom-host"] = f"http://127.0.0.1:{upstream.port}/v1"
        super().__init__(name, command, PROXY_CORE, port, env)
        self.path = path
        self.headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}


class Direct:
    """No proxy: what the others' times are compared with."""

    name, path = "direct", PATH

    def __init__(self, upstream):
        self.port = upstream.port
        self.headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-mock"}

    def cpu_s(self):
        return 0.0


def cores_idle_s():
    """Seconds that the two cores were idle so far."""
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return [sum(map(int, line[4:6])) * TICK_S for line in lines if line[0] in ("cpu0", "cpu1")]


def core_bounce_ns(options):
    command = [options.bench, "--benchmark_filter=^core_bounce", "--benchmark_format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return min(
        row["real_time"] for row in json.loads(done.stdout)["benchmarks"] if row["run_type"] == "iteration"
    )


class Patience:
    """How much longer, over the whole run, it may take because others use the machine: waiting and repeating."""

    def __init__(self, seconds):
        self.left_s = seconds

    def wait(self):
        while self.left_s > 0:
            start, before = time.monotonic(), cores_idle_s()
            time.sleep(0.3)
            took = time.monotonic() - start
            if all(b - a > 0.9 * took for a, b in zip(before, cores_idle_s(), strict=True)):
                return
            self.left_s -= took


def measured(target, upstream, run, options):
    """What run() tells, with the target's CPU time and how much others disturbed it. While there is patience a
    disturbed run is made again once; the choice between the two never looks at what was measured."""
    tries = []
    for _ in range(2):
        options.patience.wait()
        bounce = [core_bounce_ns(options)]
        start, idle, times = time.monotonic(), cores_idle_s(), os.times()
        proxy_s, upstream_s = target.cpu_s(), upstream.cpu_s()
        result = run()
        proxy_s, upstream_s = target.cpu_s() - proxy_s, upstream.cpu_s() - upstream_s
        wall, later = time.monotonic() - start, os.times()
        idle = [b - a for a, b in zip(idle, cores_idle_s(), strict=True)]
        bounce.append(core_bounce_ns(options))
        ours_s = upstream_s + sum(later[:4]) - sum(times[:4])  # our own time and that of wrk
        result |= {
            "cpu_s": proxy_s,
            "proxy_core": proxy_s / wall,
            "load_core": ours_s / wall,
            "others": max(wall - idle[0] - proxy_s, wall - idle[1] - ours_s) / wall,
            "bounce_ns": bounce,
        }
        result["disturbed"] = result["others"] > FOREIGN_LIMIT or max(bounce) > 1.5 * min(bounce)
        tries.append(result)
        if not result["disturbed"] or options.patience.left_s <= 0:
            break
        options.patience.left_s -= wall
    return min(tries, key=lambda r: (r["disturbed"], r["others"]))


def load(target, body, connections, seconds):
    script = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", HERE / "post.lua"]
    headers = "\n".join(f"{name}: {value}" for name, value in target.headers.items())
    done = subprocess.run(
        [*script, f"http://127.0.0.1:{target.port}{target.path}"],
        env={**os.environ, "BODY": str(body), "HEADERS": headers},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    sys.exit(f"wrk failed: {done.stdout}{done.stderr}")


def event_streams(target):
    body = json.dumps({**CHAT, "stream": True}).encode()
    headers = [f"{name}: {value}" for name, value in target.headers.items()]
    firsts, transits, failed = [], [], 0
    for _ in range(WAVES):
        first, transit, bad = streams.wave(target.port, target.path, headers, body, STREAMS, SPREAD_S)
        firsts, transits, failed = firsts + first, transits + transit, failed + bad
    quantiles = {"first_p50": (firsts, 0.5), "transit_p50": (transits, 0.5), "transit_p99": (transits, 0.99)}
    result = {"calls": STREAMS * WAVES, "failed": failed, "events": len(transits)}
    for name, (values, share) in quantiles.items():
        values = sorted(values)
        result[f"{name}_us"] = (
            values[min(len(values) - 1, int(len(values) * share))] / 1e3 if values else None
        )
    return result


def post(port, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def try_one(target):
    status, headers, body = post(target.port, target.path, target.headers, json.dumps(CHAT))
    if status != 200:
        sys.exit(f"{target.name} answers {status}: {body[:500]!r}")
    # Without a price the policies would have nothing to do.
    if target.name.startswith("penstock") and float(headers.get("Penstock-Cost", 0)) <= 0:
        sys.exit("penstock does not meter the call: there is no Penstock-Cost above 0")


def script_streams(upstream):
    """Sends the mock's events at a known pace and with their time in them."""
    rules = {"stamp": 1, "chunks": EVENTS, "gap_us": GAP_US}
    status, _, body = post(upstream.port, "/_mock/script", {}, json.dumps({"match": "/v1/", "rules": rules}))
    if status >= 300:
        sys.exit(f"the mock provider refused its script: {body!r}")


def one_round(number, upstream, options):
    rows = {}
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(name, upstream, options)) for name in options.targets]
        for proxy in proxies:
            proxy.wait_until_it_listens()
        first = number % len(proxies)  # each round starts with another one
        proxies = proxies[first:] + proxies[:first]
        targets = [Direct(upstream), *proxies]
        for target in targets:
            try_one(target)
            load(target, OUT / "body.json", 16, 1)  # warm
            rows[target.name] = {"round": number, "name": target.name}

        def stage(name, who, run):
            for target in who:
                row = rows[target.name][name] = measured(target, upstream, lambda t=target: run(t), options)
                rate = f"{row['calls'] / row['seconds']:8,.0f}/s" if "seconds" in row else " " * 10
                print(
                    f"round {number + 1} {name:8} {target.name:9} {rate} "
                    f"{1e6 * row['cpu_s'] / max(row['calls'], 1):8.1f} us CPU per call; failed {row['failed']}, "
                    f"proxy core {row['proxy_core']:.0%}, load core {row['load_core']:.0%}, others {row['others']:.0%}",
                    file=sys.stderr,
                    flush=True,
                )

        for connections in options.levels:
            at = lambda t, c=connections: load(t, OUT / "body.json", c, options.seconds)  # noqa: E731
            stage(f"c{connections}", proxies, at)
        for proxy in proxies:
            rows[proxy.name]["peak_mib"] = proxy.peak_mib()
        stage("slow", targets, lambda t: load(t, OUT / "slow.json", 64, options.seconds))
        script_streams(upstream)
        stage("streams", targets, event_streams)
        post(upstream.port, "/_mock/reset", {}, "")
    return list(rows.values())


def cold_start_ms(upstream, options):
    """From the start of the process to its first answer through the provider."""
    start = time.monotonic()
    with Proxy("penstock", upstream, options) as proxy:
        proxy.wait_until_it_listens(pause_s=0.0005)
        try_one(proxy)
        return 1e3 * (time.monotonic() - start)


def redis(options):
    """Set up as docs/state.md asks for hard budgets; on the load generator's core, as another machine's would be."""
    options.redis_port = free_port()
    data = OUT / "data-redis"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    command = ["redis-server", "--port", str(options.redis_port), "--bind", "127.0.0.1", "--dir", data]
    command += ["--maxmemory-policy", "noeviction", "--appendonly", "yes", "--save", ""]
    return Program("redis", command, LOAD_CORE, options.redis_port)


def new_key(penstock):
    lines = subprocess.run([penstock, "key", "new"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    fields = dict(line.split(": ", 1) for line in lines[:2])
    return fields["key"].strip(), fields["hash"].strip()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--levels", default="1,16,64,256", help="connections, rising (default: %(default)s)")
    parser.add_argument(
        "--targets",
        default="",
        help="nginx, haproxy, penstock, portkey where installed; penstock+none keeps no ledger, penstock+redis shares its\n"
        "state over a Redis of this run (default: all but portkey)",
    )
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds more, in all, for a quiet machine"
    )
    parser.add_argument(
        "--build", type=Path, default=HERE.parent / "build/release", help="the build's folder"
    )
    options = parser.parse_args()
    options.levels = sorted(int(level) for level in options.levels.split(","))
    options.targets = [name for name in options.targets.split(",") if name]
    if not options.targets:
        options.targets = ["nginx", "haproxy", "penstock", "penstock+none", "penstock+redis"]
        if (HERE / "npm/portkey/node_modules").is_dir():
            options.targets.append("portkey")
    options.penstock, options.bench = options.build / "bin/penstock", options.build / "bin/penstock_bench"
    options.patience = Patience(options.patience)
    return options


def main():
    options = arguments()
    if not os.sched_getaffinity(0) >= PROXY_CORE | LOAD_CORE:
        sys.exit("the side-by-side run needs cores 0 and 1")
    programs = {"redis-server" if t.endswith("+redis") else t.partition("+")[0] for t in options.targets}
    for program in (programs | {"wrk"}) - {"penstock", "portkey"}:
        if not shutil.which(program):
            sys.exit(f"{program} is not installed; 'make setup' does it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    OUT.mkdir(exist_ok=True)
    (OUT / "body.json").write_text(json.dumps(CHAT))
    (OUT / "slow.json").write_text(json.dumps({**CHAT, "model": f"delay-{SLOW_US}us"}))
    options.key = new_key(options.penstock)

    rows, port = [], free_port()
    mock = [options.build / "bin/mock_provider", "--port", str(port)]
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Program("mock_provider", mock, LOAD_CORE, port))
        upstream.wait_until_it_listens()
        if "penstock+redis" in options.targets:
            stack.enter_context(redis(options)).wait_until_it_listens()
        starts = []
        if "penstock" in options.targets:
            starts = [cold_start_ms(upstream, options) for _ in range(10)]
        for number in range(options.rounds):
            rows += one_round(number, upstream, options)
    (OUT / "results.json").write_text(json.dumps({"cold_start_ms": starts, "rows": rows}, indent=1))
    text = report.render(rows, starts, options.targets, options.levels)
    (OUT / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
