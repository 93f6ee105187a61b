"""The layer check finds what it is for, and nothing else."""

import subprocess
import sys
from pathlib import Path

import check_layers
import pytest


def errors_of(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return check_layers.check_tree(tmp_path)[1]


@pytest.mark.parametrize(
    ("file", "include"),
    [
        ("base/a.cpp", "policy/budget.hpp"),
        ("policy/a.cpp", "http/server.hpp"),
        ("config/a.cpp", "http/server.hpp"),
        ("http/a.hpp", "policy/limit.hpp"),
        ("store/a.hpp", "store/memory/state.hpp"),
        ("store/redis/a.cpp", "store/sqlite/state.hpp"),
        ("store/memory/a.cpp", "config/config.hpp"),
        ("gateway/phases/a.cpp", "store/memory/state.hpp"),
        ("gateway/a.cpp", "control/api.hpp"),
        ("gateway/a.cpp", "app/main.hpp"),
        ("control/a.cpp", "gateway/call.hpp"),
        ("policy/a_test.cpp", "http/server.hpp"),
    ],
)
def test_an_include_against_the_layers_is_an_error(tmp_path, file, include):
    errors = errors_of(tmp_path, {file: f'#pragma once\n\n#  include "{include}"\n'})
    assert len(errors) == 1
    assert errors[0].startswith(f"{tmp_path / file}:3: ")
    assert f'"{include}"' in errors[0]


@pytest.mark.parametrize(
    ("file", "include"),
    [
        ("policy/a.cpp", "base/money.hpp"),
        ("policy/a.cpp", "policy/a.hpp"),
        ("store/memory/a.cpp", "store/state.hpp"),
        ("store/memory/a.cpp", "vector/hnsw.hpp"),
        ("gateway/phases/a.cpp", "gateway/call.hpp"),
        ("gateway/phases/a.cpp", "store/state.hpp"),
        ("app/main.cpp", "store/redis/state.hpp"),
        ("app/main.cpp", "gateway/call.hpp"),
    ],
)
def test_an_include_along_the_layers_is_not(tmp_path, file, include):
    assert errors_of(tmp_path, {file: f'#include "{include}"\n'}) == []


def test_the_allowed_folders_are_named(tmp_path):
    (error,) = errors_of(tmp_path, {"config/a.cpp": '#include "http/x.hpp"\n'})
    assert error.endswith("it may use: config, base, policy")


def test_pure_folders_hold_no_sockets_locks_or_logs(tmp_path):
    text = "#include <vector>\n#include <mutex>\n#include <boost/asio/awaitable.hpp>\n#include <spdlog/spdlog.h>\n"
    text += '#include "base/async.hpp"\n'
    assert len(errors_of(tmp_path, {"policy/a.hpp": text})) == 4
    assert errors_of(tmp_path / "other", {"http/a.hpp": text}) == []


def test_paths_start_at_src(tmp_path):
    assert len(errors_of(tmp_path, {"policy/a.cpp": '#include "../http/x.hpp"\n#include "limit.hpp"\n'})) == 2


def test_a_folder_outside_the_table_is_an_error(tmp_path):
    assert len(errors_of(tmp_path, {"misc/a.cpp": "int x;\n", "a.cpp": "int x;\n"})) == 2


def test_an_empty_tree_does_not_pass(tmp_path):
    command = [sys.executable, Path(check_layers.__file__), "--src", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_the_tree_itself_is_clean():
    assert check_layers.check_tree(Path(check_layers.__file__).parent.parent / "src")[1] == []
