#!/usr/bin/env python3
"""Builds, then runs every kind of test, and ends with one line: `N passed, N failed`.

Checks, GoogleTest cases, fuzzers (seconds each) and pytest cases are summed. A part that crashes, hangs or
cannot start counts as one failure, so that nothing can vanish; a run of no test at all fails too.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 60
BINARY_TIMEOUT_S = 900  # for one GoogleTest binary
FUZZ_SECONDS = 15
CHECKS = [
    "layers",
    "format",
    "ruff",
    "shell",
    "contracts",
    "links",
]  # the ones of tools/check.py that are quick
SANITIZERS = {
    "ASAN_OPTIONS": "halt_on_error=1:detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@dataclasses.dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclasses.dataclass
class Outcome:
    name: str
    tally: Tally
    seconds: float
    output: str = ""


def say(text):
    print(text, flush=True)


def report(outcome):
    verdict = "FAILED" if outcome.tally.failed else "ok"
    say(f"{verdict:>6}  {outcome.name:<28} {outcome.tally}  ({outcome.seconds:.1f} s)")
    if outcome.tally.failed and outcome.output:
        lines = outcome.output.rstrip().splitlines()
        if len(lines) > TAIL_LINES:
            say(f"        | … {len(lines) - TAIL_LINES} lines before these")
        for line in lines[-TAIL_LINES:]:
            say(f"        | {line}")


def environment():
    env = dict(os.environ)
    for name, value in SANITIZERS.items():
        env[name] = value + (":" + env[name] if env.get(name) else "")
    for symbolizer in ("/usr/bin/llvm-symbolizer-19", "/usr/lib/llvm-19/bin/llvm-symbolizer"):
        if Path(symbolizer).exists():
            env.setdefault("ASAN_SYMBOLIZER_PATH", symbolizer)
    return env


live = set()  # process groups that we started and that have not ended


def kill_group(leader):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def run(command, timeout=None, **options):
    """The exit code (None: it took longer than `timeout`) and all output of a command, its children included."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment(),
        **options,
    )
    live.add(process.pid)
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        output, _ = process.communicate()
        return None, output
    finally:
        live.discard(process.pid)


def build(preset):
    started = time.monotonic()
    say(f"build: {preset}")
    jobs = os.environ.get("JOBS", str(os.cpu_count() or 1))
    for command in (
        ["cmake", "--preset", preset],
        ["cmake", "--build", "--preset", preset, "-j", jobs, "--target", "all", "--", "-k", "0"],
    ):
        if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            return Outcome("build", Tally(failed=1), time.monotonic() - started)
    return Outcome("build", Tally(), time.monotonic() - started)


# --- GoogleTest ---


def junit_tally(path):
    """Counts the cases of a JUnit file, of GoogleTest and pytest alike; None where there is none to read."""
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, OSError):
        return None
    cases = {}
    for number, case in enumerate(root.iter("testcase")):
        if case.get("status") == "notrun":  # GoogleTest: left out by a filter, or DISABLED_
            continue
        # pytest writes a second element for a case whose teardown fails; it is one case all the same.
        key = (case.get("classname"), case.get("name"), case.get("file")) if case.get("name") else number
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            cases[key] = "failed"
        elif "skipped" in kinds:
            cases.setdefault(key, "skipped")
        else:
            cases.setdefault(key, "passed")
    verdicts = list(cases.values())
    return Tally(*(verdicts.count(kind) for kind in ("passed", "failed", "skipped")))


def run_gtest(binary, keyword):
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "result.xml"
        command = [binary, f"--gtest_output=xml:{xml}", "--gtest_color=no", "--gtest_brief=0"]
        if keyword and re.fullmatch(r"\w+", keyword):
            command.append(f"--gtest_filter=*{keyword}*")
        code, output = run(command, timeout=BINARY_TIMEOUT_S, cwd=ROOT)
        tally = junit_tally(xml)
    if tally is None:  # it died before it could write: what it had printed is all there is
        tally = Tally(passed=len(re.findall(r"^\[       OK \]", output, re.M)), failed=1)
    elif code != 0 and not tally.failed:  # a leak, or a crash after the last case
        tally.failed = 1
    if code is None:
        output += f"\nkilled after {BINARY_TIMEOUT_S} s"
    elif code not in (0, 1):
        output += f"\nexit code {code}"
    return Outcome(binary.name, tally, time.monotonic() - started, output)


# --- fuzzers ---


def run_fuzzer(binary, seconds):
    """From the seeds in tests/fuzz/corpus/<name>; what it finds goes to build/<preset>/fuzz/<name>."""
    started = time.monotonic()
    seeds = ROOT / "tests" / "fuzz" / "corpus" / binary.name
    dictionary = ROOT / "tests" / "fuzz" / f"{binary.name}.dict"
    found = binary.parent.parent / "fuzz" / binary.name
    (found / "corpus").mkdir(parents=True, exist_ok=True)
    (found / "crashes").mkdir(exist_ok=True)
    command = [
        binary,
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    command += [f"-artifact_prefix={found / 'crashes'}/"]
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    command.append(found / "corpus")
    if seeds.is_dir():
        command.append(seeds)
    code, output = run(command, timeout=seconds + 120, cwd=ROOT)
    executed = re.search(r"number_of_executed_units:\s*(\d+)", output)
    units = int(executed.group(1)) if executed else 0
    ok = code == 0 and units > 0
    if ok:
        say(f"        {binary.name}: {units} inputs")
    return Outcome(binary.name, Tally(int(ok), int(not ok)), time.monotonic() - started, output)


# --- checks and pytest ---


def run_check(name):
    started = time.monotonic()
    code, output = run([sys.executable, ROOT / "tools" / "check.py", "--only", name], timeout=300, cwd=ROOT)
    return Outcome(f"check {name}", Tally(int(code == 0), int(code != 0)), time.monotonic() - started, output)


def run_pytest(binaries, keyword, paths):
    started = time.monotonic()
    env = environment()
    env.setdefault("PENSTOCK_BIN", str(binaries / "penstock"))
    env.setdefault("PENSTOCK_MOCK_PROVIDER", str(binaries / "mock_provider"))
    venv = ROOT / ".venv" / "bin" / "python"
    python = str(venv) if venv.exists() else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "result.xml"
        command = [python, "-m", "pytest", "-v", "--color=no", f"--junit-xml={xml}"]
        if keyword:
            command += ["-k", keyword]
        # Its output is the progress: one line a case, the failures at the end.
        code = subprocess.run(
            [*command, *paths], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False
        ).returncode
        tally = junit_tally(xml)
    if tally is None:
        tally = Tally(failed=0 if code == 5 else 1)  # 5: it found no test
    elif (code not in (0, 1, 5) and not tally.failed) or (code == 1 and not tally.failed):
        tally.failed = 1
    return Outcome("pytest", tally, time.monotonic() - started)


def in_parallel(function, items):
    """Outcomes as they come, as many at once as there are cores."""
    workers = int(os.environ.get("JOBS", os.cpu_count() or 1))
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        for future in concurrent.futures.as_completed([pool.submit(function, item) for item in items]):
            yield future.result()
    except BaseException:  # Ctrl-C: what has not begun never does, what runs is ended
        pool.shutdown(wait=False, cancel_futures=True)
        for leader in list(live):
            kill_group(leader)
        raise
    finally:
        pool.shutdown()


def executables(folder, suffix):
    return sorted(p for p in folder.glob(f"*{suffix}") if p.is_file() and os.access(p, os.X_OK))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["checks", "unit", "fuzz", "integration"]
    parser.add_argument(
        "--only", choices=parts, action="append", help="run this part alone (may be repeated)"
    )
    parser.add_argument(
        "-k", dest="keyword", metavar="EXPR", help="passed to pytest; a word also picks unit tests"
    )
    parser.add_argument("--preset", default="dev", help="the CMake preset to build and test (default: dev)")
    parser.add_argument("--no-build", action="store_true", help="test what is already built")
    parser.add_argument("--build-dir", type=Path, help="instead of build/<preset>; implies --no-build")
    parser.add_argument("--fuzz-seconds", type=int, default=FUZZ_SECONDS, help="for each fuzzer")
    parser.add_argument("paths", nargs="*", help="for pytest, instead of all its tests")
    args = parser.parse_args()

    wanted = args.only or (["integration"] if args.paths else parts)
    folder = args.build_dir or ROOT / "build" / args.preset
    binaries = folder / "bin"
    total = Tally()

    def take(outcome):
        report(outcome)
        total.add(outcome.tally)

    if "checks" in wanted and not args.keyword:
        say("checks")
        for outcome in in_parallel(run_check, CHECKS):
            take(outcome)
    if not args.no_build and not args.build_dir and set(wanted) - {"checks"}:
        built = build(args.preset)
        take(built)
        if built.tally.failed:
            wanted = []  # what an earlier build left would only mislead
    if "unit" in wanted:
        say("unit tests")
        for outcome in in_parallel(
            lambda binary: run_gtest(binary, args.keyword), executables(binaries, "_test")
        ):
            take(outcome)
    if "fuzz" in wanted and not args.keyword:
        say(f"fuzzers, {args.fuzz_seconds} s each")
        for outcome in in_parallel(
            lambda binary: run_fuzzer(binary, args.fuzz_seconds), executables(binaries, "_fuzz")
        ):
            take(outcome)
    if "integration" in wanted:
        say("black-box tests")
        take(run_pytest(binaries, args.keyword, args.paths))

    if not total.passed and not total.failed:
        say("no test ran")
    say(str(total))
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
