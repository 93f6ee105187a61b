#!/usr/bin/env bash
# Builds what users run, then measures it: micro benchmarks, and side by side with other proxies.
#
#   bench/run.sh [--rounds 3] [--seconds 3] [--levels 1,16,64,256] [--targets nginx,penstock] [--patience 60]
#
# The micro benchmarks alone: build/release/bin/penstock_bench --benchmark_filter=... Results: bench/out/.
# PENSTOCK_BENCH_PORTKEY=1 installs Portkey's gateway (npm) and measures it too; PENSTOCK_BENCH_NO_BUILD=1 takes
# the build that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in *" --help "* | *" -h "*) exec sed -n '2,8s/^# \{0,1\}//p' bench/run.sh ;; esac

python=.venv/bin/python
[ -x $python ] || python=python3

if [ -z "${PENSTOCK_BENCH_NO_BUILD:-}" ]; then
  cmake --preset release >/dev/null
  cmake --build --preset release -j "${JOBS:-$(nproc)}"
fi
if [ -n "${PENSTOCK_BENCH_PORTKEY:-}" ] && [ ! -d bench/npm/portkey/node_modules ]; then
  (cd bench/npm/portkey && npm install --no-audit --no-fund --no-package-lock)
fi

mkdir -p bench/out
$python bench/micro.py build/release/bin/penstock_bench bench/out/micro.json | tee bench/out/micro.md
echo
$python bench/side_by_side.py "$@"
