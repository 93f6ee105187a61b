#!/usr/bin/env python3
"""The checks that need no build: all at once, what fails is shown, and `--fix` formats in place."""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPP = {".cpp", ".hpp"}
TEXT = CPP | {".py", ".sh", ".md", ".yaml", ".yml", ".json", ".toml", ".txt", ".cmake"}
# A mark that something was left for later belongs in an issue, not in the tree.
LEFTOVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|^(<{7}|>{7}) ", re.M)


def files(suffixes):
    """Files of the tree, those not yet added included, those ignored not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return sorted(name for name in listed if Path(name).suffix in suffixes and (ROOT / name).is_file())


def run(command, **options):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    return done.returncode == 0, done.stdout


def ruff():
    beside = Path(sys.executable).parent / "ruff"
    return beside if beside.exists() else "ruff"


def check_layers(_fix):
    return run([sys.executable, "tools/check_layers.py"])


def check_format(fix):
    names = files(CPP)
    if not names:
        return True, ""
    if fix:
        return run(["clang-format-19", "-i", *names])
    ok, output = run(["clang-format-19", "--dry-run", "-Werror", *names])
    # One line a file is enough: `make fmt` mends it.
    first = {m[1]: m[0] for m in reversed(list(re.finditer(r"^(\S+?):\d+(?=:\d+: error)", output, re.M)))}
    return ok, "\n".join(
        f"{place}: not as .clang-format has it; run 'make fmt'" for place in sorted(first.values())
    )


def check_ruff(fix):
    ok_format, format_output = run([ruff(), "format", *([] if fix else ["--diff"]), "."])
    ok_lint, lint_output = run([ruff(), "check", "--quiet", *(["--fix"] if fix else []), "."])
    return ok_format and ok_lint, format_output + lint_output


def check_shell(_fix):
    names = [*files({".sh"}), *(n for n in (".ci/run",) if (ROOT / n).exists())]
    if not shutil.which("shellcheck"):
        return all(
            run(["bash", "-n", name])[0] for name in names
        ), "shellcheck is missing: only the syntax was checked"
    return run(["shellcheck", "--severity=warning", *names])


def check_text(fix):
    problems = []
    for name in files(TEXT):
        if name.startswith("tests/fuzz/corpus/"):
            continue  # inputs of programs: every byte is meant
        path = ROOT / name
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            problems.append(f"{name}: not UTF-8")
            continue
        for match in LEFTOVER.finditer(text):
            problems.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: left over: {match.group()}")
        tidy = re.sub(r"[ \t]+$", "", text, flags=re.M).rstrip("\n") + "\n" if text else text
        if tidy != text:
            if fix:
                path.write_text(tidy)
            else:
                problems.append(
                    f"{name}: spaces at the end of a line, or not one newline at the end of the file"
                )
    return not problems, "\n".join(problems)


def check_contracts(_fix):
    return run([sys.executable, "tools/check_contracts.py"])


def check_links(_fix):
    return run([sys.executable, "tools/check_links.py"])


def check_tidy(_fix):
    return run([sys.executable, "tools/tidy.py"])


CHECKS = {
    "layers": check_layers,
    "format": check_format,
    "text": check_text,
    "ruff": check_ruff,
    "shell": check_shell,
    "contracts": check_contracts,
    "links": check_links,
    "tidy": check_tidy,
}
FIXABLE = ["format", "text", "ruff"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CHECKS, action="append", help="this check alone (may be repeated)")
    parser.add_argument("--fix", action="store_true", help=f"change files in place: {', '.join(FIXABLE)}")
    args = parser.parse_args()
    names = args.only or (FIXABLE if args.fix else list(CHECKS))

    def timed(name):
        started = time.monotonic()
        ok, output = CHECKS[name](args.fix)
        return name, ok, output, time.monotonic() - started

    failed = 0
    # Formatters write the same files, so one after the other; checks only read.
    workers = 1 if args.fix else os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
        for future in concurrent.futures.as_completed([pool.submit(timed, name) for name in names]):
            name, ok, output, seconds = future.result()
            failed += not ok
            print(f"{'ok' if ok else 'FAILED':>6}  {name:<10} {seconds:.1f} s", flush=True)
            if not ok:
                print(output.rstrip(), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
