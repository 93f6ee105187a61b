#!/usr/bin/env python3
"""Fails on an #include that reaches against the order of the layers of src/.

The table below is that order: a folder may include itself and what stands in its row. `store` means its
interfaces, the files directly in src/store/; a backend is a folder below it and is named by app alone.
"""

import argparse
import re
import sys
from pathlib import Path

ALLOWED = {
    "base": [],
    "policy": ["base"],
    "vector": ["base"],
    "observe": ["base"],
    "config": ["base", "policy"],
    "http": ["base", "observe"],
    "store": ["base", "policy", "observe"],
    "store/contract": ["base", "policy", "observe", "vector", "store"],
    "store/journal": ["base", "policy", "observe", "vector", "store"],
    "store/memory": ["base", "policy", "observe", "vector", "store"],
    "store/sql": ["base", "policy", "observe", "store"],
    "store/sqlite": ["base", "policy", "observe", "vector", "store", "store/sql"],
    "store/postgres": ["base", "policy", "observe", "vector", "store", "store/sql"],
    # What each replica decides alone, circuits and its share of limits, is a state in memory.
    "store/redis": ["base", "policy", "observe", "vector", "store", "store/memory"],
    "gateway": ["base", "policy", "vector", "observe", "config", "http", "store"],
    "control": ["base", "policy", "vector", "observe", "config", "http", "store"],
}
# The contract of a backend, which the backends' own tests include; and the simplest backend, for what decorates one.
TESTS_ONLY = {"store/contract", "store/memory"}
ANYTHING = {"app"}  # the wiring: it alone names backends

# Pure folders: no socket, coroutine, thread, lock or log, whatever it comes from.
IMPURE = re.compile(
    r"^(boost/(asio|beast)\b.*|spdlog/.*|openssl/.*|opentelemetry/.*|sys/(socket|epoll|stat)\.h|unistd\.h"
    r"|netinet/.*|thread|mutex|shared_mutex|condition_variable|future|fstream|iostream|filesystem)$"
)
IMPURE_OURS = {"base/async.hpp"}
PURE = {"policy"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
SOURCES = {".hpp", ".cpp", ".h", ".cc"}


def module_of(path):
    """'gateway/phases/admit.hpp' -> 'gateway'; 'store/redis/x.hpp' -> 'store/redis'; None: not a layer."""
    folders = path.split("/")[:-1]
    if not folders:
        return None
    if folders[0] == "store" and len(folders) > 1:
        return "/".join(folders[:2])
    return folders[0]


def check_file(src, file):
    """Yields 'file:line: message' for each include of `file` that its folder may not have."""
    name = file.relative_to(src).as_posix()
    module = module_of(name)
    if module in ANYTHING:
        return
    if module not in ALLOWED:
        yield f"{file}:1: folder '{module or '.'}' is in no row of the layer table in tools/check_layers.py"
        return
    allowed = [module, *ALLOWED[module]]
    is_test = file.stem.endswith(("_test", "_fuzz", "_bench"))
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        kind, target = match.groups()
        if kind == "<":
            if module in PURE and not is_test and IMPURE.match(target):
                yield f"{file}:{number}: {module} is pure and may not include <{target}>"
            continue
        if ".." in target.split("/"):
            yield f'{file}:{number}: "{target}" climbs out of its folder: write the path from src/'
            continue
        used = module_of(target)
        if used is None:
            yield f'{file}:{number}: "{target}" names no folder: write "{module}/{target}"'
        elif module in PURE and not is_test and target in IMPURE_OURS:
            yield f'{file}:{number}: {module} is pure and may not include "{target}"'
        elif used in TESTS_ONLY and is_test and module.startswith("store/"):
            continue
        elif used not in allowed:
            yield f'{file}:{number}: {module} may not include "{target}"; it may use: {", ".join(allowed)}'


def check_tree(src):
    files = sorted(f for f in src.rglob("*") if f.suffix in SOURCES and f.is_file())
    return len(files), [error for file in files for error in check_file(src, file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", type=Path, default=Path("src"), help="the folder that holds the layers")
    src = parser.parse_args().src
    if not src.is_dir():
        sys.exit(f"{src}: no such folder")
    count, errors = check_tree(src)
    for error in errors:
        print(error)
    if count == 0:
        sys.exit(f"{src}: no sources found")
    if errors:
        sys.exit(f"{len(errors)} includes against the layers")
    print(f"{count} files keep to the layers")


if __name__ == "__main__":
    main()
