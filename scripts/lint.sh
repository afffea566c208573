#!/usr/bin/env bash
# Checks the form of our C++ with clang-format, and its content with clang-tidy where a compile database is there.
#   scripts/lint.sh           report, status 1 if something is to be changed
#   scripts/lint.sh --fix     format in place first
# Needs clang-format and clang-tidy of version 14 or later (packages clang-format, clang-tidy); not part of ./test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${GOV_BUILD_ROOT:-build}/release
mapfile -t files < <(find src tests bench -name '*.h' -o -name '*.cc' | sort)
if [ "${1:-}" = --fix ]; then clang-format -i "${files[@]}"; fi
status=0
clang-format --dry-run --Werror "${files[@]}" || status=1
if [ -f "$build/compile_commands.json" ]; then
  find src -name '*.cc' -print0 | xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option -p "$build" || status=1
else
  echo "note: no $build/compile_commands.json, so clang-tidy did not run; ./run makes it" >&2
fi
exit "$status"
