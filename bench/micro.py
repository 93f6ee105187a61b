#!/usr/bin/env python3
"""Runs the micro benchmarks and prints nanoseconds per operation as a Markdown table.

usage: micro.py PENSTOCK_BENCH RESULTS.json
"""

import json
import os
import subprocess
import sys

UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
command = [sys.argv[1], "--benchmark_min_time=0.15", f"--benchmark_out={sys.argv[2]}"]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
with open(sys.argv[2]) as file:
    results = json.load(file)["benchmarks"]

failed = sorted({row["name"] for row in results if row.get("error_occurred")})
least = {}  # of the repetitions, where there are any
for row in results:
    if row["run_type"] == "iteration" and row["name"] not in failed:
        name = row["name"].partition("/iterations")[0]
        nanoseconds = row["cpu_time"] * UNITS[row["time_unit"]]
        least[name] = min(nanoseconds, least.get(name, nanoseconds))
width = max(map(len, least))
print(f"| {'operation':{width}} | ns, CPU |\n| {'-' * width} | ------: |")
for name, nanoseconds in least.items():
    print(f"| {name:{width}} | {nanoseconds:7,.0f} |")
for name in failed:
    print(f"{name} failed")
sys.exit(1 if failed else 0)
