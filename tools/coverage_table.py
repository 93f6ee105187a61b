#!/usr/bin/env python3
"""Sums the output of `llvm-cov export -summary-only`, on standard input, by folder of src/."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def folder_of(filename):
    """'…/src/store/memory/x.cpp' -> 'store/memory', '…/src/http/tls/x.cpp' -> 'http'; None: not in src/."""
    path = Path(filename)
    if not path.is_relative_to(ROOT / "src"):
        return None
    parts = path.relative_to(ROOT / "src").parts[:-1]
    return "/".join(parts[:2] if parts[:1] == ("store",) else parts[:1])


def table(export):
    """Rows of (folder, lines, lines reached, branches, branches reached), the last one the sum."""
    sums = {}
    for file in export["data"][0]["files"]:
        folder = folder_of(file["filename"])
        if folder is None:
            continue
        row = sums.setdefault(folder, [0, 0, 0, 0])
        for offset, kind in ((0, "lines"), (2, "branches")):
            row[offset] += file["summary"][kind]["count"]
            row[offset + 1] += file["summary"][kind]["covered"]
    rows = [(folder, *counts) for folder, counts in sorted(sums.items())]
    return (
        [*rows, ("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True)))]
        if rows
        else []
    )


def percent(reached, count):
    return f"{100 * reached / count:5.1f} %" if count else "      -"


def main():
    rows = table(json.load(sys.stdin))
    if not rows:
        sys.exit("no file of src/ in the coverage data")
    print(f"{'folder':<16}{'lines':>8}{'reached':>9}{'branches':>10}{'reached':>9}")
    for folder, lines, lines_reached, branches, branches_reached in rows:
        lines_percent, branches_percent = percent(lines_reached, lines), percent(branches_reached, branches)
        print(f"{folder:<16}{lines:>8}{lines_percent:>9}{branches:>10}{branches_percent:>9}")


if __name__ == "__main__":
    main()
