"""The runner's closing line is what CI reads: nothing that fails, crashes, hangs or is missing may vanish from it."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import run_tests

GTEST = """#!/usr/bin/env python3
import pathlib, sys
xml = next(a.split(":", 1)[1] for a in sys.argv if a.startswith("--gtest_output=xml:"))
pathlib.Path(xml).write_text('''<testsuites><testsuite name="A">
  <testcase name="Good" classname="A" status="run" result="completed" />
  {cases}
</testsuite></testsuites>''')
sys.exit({code})
"""
BAD = '<testcase name="Bad" classname="A" status="run"><failure message="no" /></testcase>'
SKIPPED = '<testcase name="Skip" classname="A" status="run" result="skipped"><skipped /></testcase>'
DISABLED = '<testcase name="Off" classname="A" status="notrun" result="suppressed" />'


def program(folder, name, text):
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def last_line(folder, *arguments):
    command = [sys.executable, run_tests.__file__, "--build-dir", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1], done.stdout


@pytest.mark.parametrize(
    ("cases", "code", "line", "status"),
    [
        ("", 0, "1 passed, 0 failed", 0),
        (BAD, 1, "1 passed, 1 failed", 1),
        (SKIPPED + DISABLED, 0, "1 passed, 0 failed, 1 skipped", 0),
        ("", 23, "1 passed, 1 failed", 1),  # a leak is found after the last case
    ],
)
def test_unit_cases_are_summed(tmp_path, cases, code, line, status):
    program(tmp_path, "a_test", GTEST.format(cases=cases, code=code))
    assert last_line(tmp_path, "--only", "unit")[:2] == (status, line)


def test_several_binaries_are_summed(tmp_path):
    program(tmp_path, "a_test", GTEST.format(cases=BAD, code=1))
    program(tmp_path, "b_test", GTEST.format(cases=SKIPPED, code=0))
    assert last_line(tmp_path, "--only", "unit")[:2] == (1, "2 passed, 1 failed, 1 skipped")


def test_a_crash_is_a_failure_and_what_passed_before_still_counts(tmp_path):
    program(tmp_path, "a_test", "#!/bin/sh\necho '[       OK ] A.B (0 ms)'\necho last words\nkill -SEGV $$\n")
    status, line, output = last_line(tmp_path, "--only", "unit")
    assert (status, line) == (1, "1 passed, 1 failed")
    assert "last words" in output


def test_a_hang_is_a_failure(tmp_path, monkeypatch):
    # The child of the hanging program must go too, or it would hold the pipe open.
    hangs = program(tmp_path, "a_test", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n")
    monkeypatch.setattr(run_tests, "BINARY_TIMEOUT_S", 0.2)
    outcome = run_tests.run_gtest(hangs, None)
    assert outcome.tally == run_tests.Tally(failed=1)
    assert "killed after" in outcome.output


def test_nothing_to_run_fails(tmp_path):
    status, line, output = last_line(tmp_path, "--only", "unit")
    assert (status, line) == (1, "0 passed, 0 failed")
    assert "no test ran" in output


def test_a_fuzzer_that_ran_no_input_fails(tmp_path):
    program(tmp_path, "a_fuzz", "#!/bin/sh\nexit 0\n")
    program(tmp_path, "b_fuzz", "#!/bin/sh\necho 'stat::number_of_executed_units: 7'\n")
    program(tmp_path, "c_fuzz", "#!/bin/sh\necho 'stat::number_of_executed_units: 7'\nexit 77\n")
    assert last_line(tmp_path, "--only", "fuzz", "--fuzz-seconds", "1")[:2] == (1, "1 passed, 2 failed")
    assert (
        tmp_path / "fuzz" / "b_fuzz" / "corpus"
    ).is_dir()  # what it finds stays with the build, not in the tree


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def test_a(): pass\ndef test_b(): assert False\n", "1 passed, 1 failed"),
        ("import nothing_of_this_name\n", "0 passed, 1 failed"),
        (
            "import pytest\n@pytest.mark.skip\ndef test_a(): pass\ndef test_b(): pass\n",
            "1 passed, 0 failed, 1 skipped",
        ),
        (
            "import pytest\n@pytest.fixture\ndef f():\n    yield\n    assert False\ndef test_a(f): pass\n",
            "0 passed, 1 failed",
        ),
        ("", "0 passed, 0 failed"),
    ],
)
def test_pytest_cases_are_summed(tmp_path, text, expected):
    case = tmp_path / "test_it.py"
    case.write_text(text)
    status, line, _ = last_line(tmp_path, "--only", "integration", str(case))
    assert line == expected
    assert status == (0 if ", 0 failed" in expected and not expected.startswith("0") else 1)


def test_the_closing_line_stands_alone(tmp_path):
    program(tmp_path, "a_test", GTEST.format(cases="", code=0))
    lines = last_line(tmp_path, "--only", "unit")[2].splitlines()
    assert [line for line in lines if re.fullmatch(r"\d+ passed, \d+ failed(, \d+ skipped)?", line)] == lines[
        -1:
    ]


def test_the_sanitizers_stop_at_the_first_error():
    env = run_tests.environment()
    assert "halt_on_error=1" in env["ASAN_OPTIONS"]
    assert "halt_on_error=1" in env["UBSAN_OPTIONS"]


def test_every_quick_check_exists():
    import check

    assert set(run_tests.CHECKS) <= set(check.CHECKS)
    assert Path(run_tests.ROOT, "tools", "check.py").exists()
