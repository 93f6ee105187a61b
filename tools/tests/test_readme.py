"""What the README tells a newcomer to type is true."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_the_example_configuration_is_accepted(tmp_path):
    binary = os.environ.get("PENSTOCK_BIN")
    if not binary:
        pytest.skip("PENSTOCK_BIN names no gateway to ask")
    (example,) = blocks("yaml")
    file = tmp_path / "penstock.yaml"
    file.write_text(example, encoding="utf-8")
    env = {**os.environ, "OPENAI_API_KEY": "sk-made-up"}
    done = subprocess.run(
        [binary, "check", "--config", file], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    pages = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|… )make ([a-z]+)", pages, re.M))
    assert named
    assert named <= targets


def test_make_alone_lists_every_target():
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("setup", "run", "test", "check", "bench", "dev", "fmt", "coverage", "fuzz", "clean"):
        assert re.search(rf"^  {target} +\S", done.stdout, re.M), target


def test_each_folder_of_the_table_is_one():
    for folder in re.findall(r"^\| `(src/\w+)`", README, re.M):
        assert (ROOT / folder).is_dir(), folder
