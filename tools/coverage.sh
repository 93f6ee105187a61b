#!/usr/bin/env bash
# Lines and branches that unit and black-box tests reach, per folder of src/. Pages to read, line by line, go to
# build/coverage/html. Processes that a test kills outright leave no counts: what is printed is a lower bound.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/coverage
profiles=$PWD/$build/profiles
rm -rf "$profiles"
mkdir -p "$profiles"

# %4m: processes of one binary add up in four files, instead of leaving one each.
status=0
LLVM_PROFILE_FILE="$profiles/%4m.profraw" \
  .venv/bin/python tools/run_tests.py --preset coverage --only unit --only integration || status=$?

llvm-profdata-19 merge -sparse -o "$build/merged.profdata" "$profiles"/*.profraw
objects=()
for binary in "$build"/bin/*; do
  case $binary in
  *_bench) ;; # measures; counts nothing
  *) [ -x "$binary" ] && objects+=("-object=$binary") ;;
  esac
done
sources=(-instr-profile="$build/merged.profdata" "${objects[@]}" -ignore-filename-regex='(_test|_fuzz)\.cpp$|^/usr/|/tests/')
llvm-cov-19 export -summary-only "${sources[@]}" | .venv/bin/python tools/coverage_table.py
llvm-cov-19 show -format=html -output-dir="$build/html" -show-branches=count "${sources[@]}" >/dev/null
echo "line by line: $build/html/index.html"
exit "$status"
