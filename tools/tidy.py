#!/usr/bin/env python3
"""Runs clang-tidy on what changed since it last passed.

A file's key is the hash of its text, of the headers that are checked with it, of .clang-tidy and of its
compile command; a key that passed is remembered in build/tidy/. A header is checked with one source file only
(its namesake, else its namesake's test, else the first that includes it), so that one changed header costs one
run. What that leaves out, an error in one file caused by a change in another, the compiler mostly finds.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIDY = "clang-tidy-19"
FOLDERS = ("src/", "tools/", "bench/", "tests/")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)


def compile_commands(build):
    """{source: its compile command}, of this project's own sources, without what only a full build has."""
    entries = json.loads((build / "compile_commands.json").read_text())
    commands = {}
    for entry in entries:
        path = Path(entry["directory"], entry["file"]).resolve()
        if not path.is_relative_to(ROOT) or not path.relative_to(ROOT).as_posix().startswith(FOLDERS):
            continue
        command = entry["command"]
        # The precompiled header is a by-product of building; its text is included all the same.
        command = re.sub(r"-Xclang -include-pch -Xclang \S+", "", command)
        command = re.sub(
            r"-Winvalid-pch|-Werror\b|-fpch-instantiate-templates|-Xclang -fno-pch-timestamp", "", command
        )
        # What the launcher and sanitizers add changes no finding and costs time.
        command = re.sub(r"^.*?(?=\S*clang\+\+)", "", command)
        command = re.sub(r"-fsanitize=\S+|-fno-sanitize-recover=\S+|-fsanitize-coverage=\S+", "", command)
        commands[path.relative_to(ROOT).as_posix()] = {**entry, "command": command, "file": str(path)}
    return commands


def headers_of(sources):
    """{source: the headers that are checked with it}; each header of src/ belongs to exactly one source."""
    owned = {source: [] for source in sources}
    included = {source: INCLUDE.findall((ROOT / source).read_text(errors="replace")) for source in sources}
    for header in sorted((ROOT / "src").rglob("*.hpp")):
        name = header.relative_to(ROOT).as_posix()
        stem = name.removesuffix(".hpp")
        owner = next((s for s in (f"{stem}.cpp", f"{stem}_test.cpp", f"{stem}_fuzz.cpp") if s in owned), None)
        if owner is None:
            path = name.removeprefix("src/")
            owner = next((s for s in sorted(sources) if path in included[s]), None)
        if owner is not None:
            owned[owner].append(name)
    return owned


def key_of(source, headers, entry, config):
    digest = hashlib.sha256(config)
    digest.update(entry["command"].encode())
    for name in (source, *headers):
        digest.update(b"\0" + name.encode() + b"\0" + (ROOT / name).read_bytes())
    return digest.hexdigest()


def run_tidy(source, headers, database):
    """Whether it found nothing, and what it said."""
    wanted = "|".join(re.escape(f"{ROOT}/{name}") for name in headers) or "^$"
    command = [TIDY, "--quiet", "-p", str(database), f"--header-filter=^({wanted})$", str(ROOT / source)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode == 0:
        return True, ""
    said = done.stdout.strip() or done.stderr.strip()
    return False, said.replace(f"{ROOT}/", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="do not trust the cache")
    parser.add_argument("--build-dir", type=Path, help="a configured build (default: configures build/dev)")
    parser.add_argument("files", nargs="*", help="only these sources")
    args = parser.parse_args()

    build = args.build_dir or ROOT / "build" / "dev"
    if args.build_dir is None:
        configured = subprocess.run(
            ["cmake", "--preset", "dev"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if configured.returncode != 0:
            sys.exit(configured.stderr)
    commands = compile_commands(build)
    if not commands:
        sys.exit("no source to check: is the build configured?")
    headers = headers_of(commands)

    state = build.parent / "tidy"
    state.mkdir(exist_ok=True)
    memory = state / "passed.json"
    try:
        passed = json.loads(memory.read_text())
    except (OSError, ValueError):
        passed = {}
    config = (ROOT / ".clang-tidy").read_bytes()
    keys = {source: key_of(source, headers[source], entry, config) for source, entry in commands.items()}
    chosen = {Path(f).resolve().relative_to(ROOT).as_posix() for f in args.files} or set(keys)
    due = [s for s in sorted(keys) if s in chosen and (args.all or args.files or passed.get(s) != keys[s])]

    lock = threading.Lock()
    failures = 0

    def check(source):
        ok, output = run_tidy(source, headers[source], database)
        with lock:
            if ok:
                # Saved after each, so that an interrupted first run is not in vain.
                passed[source] = keys[source]
                memory.write_text(json.dumps({s: k for s, k in passed.items() if s in keys}, indent=1))
        return ok, output

    with tempfile.TemporaryDirectory() as database:
        Path(database, "compile_commands.json").write_text(json.dumps(list(commands.values())))
        with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", os.cpu_count() or 1))) as pool:
            for ok, output in pool.map(check, due):
                if not ok:
                    failures += 1
                    print(output, flush=True)
    print(f"clang-tidy: {len(due)} of {len(chosen)} files were due, {failures} with findings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
