#!/bin/bash
# SPDX-License-Identifier: MIT
# Every test: check.sh BUILD.  The last line is `N passed, N failed, N skipped`; the exit status
# is 0 only if something passed and nothing failed.
#   SECONDS_PER_CELL, CELLS    see tests/run_torture.sh
#   NO_DEBUG_BUILD=1           leaves out the checks that need builds of their own
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
sh tools/deps.sh check || exit
unset LD_PRELOAD DRAMSIZE SWAPDIR SWAPPATH ${!EXTMEM_@}
export SECONDS_PER_CELL=${SECONDS_PER_CELL:-1}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

ninja -C "$build" || exit
# A run that was interrupted must not be counted again.
rm -f "$build"/meson-logs/testlog.json
meson test -C "$build" --no-rebuild --print-errorlogs --num-processes "$(nproc)"

logs=()
[ -n "$NO_DEBUG_BUILD" ] || {
	bash tests/builds/run.sh "$build" | tee "$work/builds.tap"
	[ "${PIPESTATUS[0]}" = 0 ] || grep -q '^not ok' "$work/builds.tap" ||
		echo "not ok - ended early" >>"$work/builds.tap"
	logs+=("$work/builds.tap")
}
echo
[ -s "$build/meson-logs/testlog.json" ] || {
	echo "meson test left no log"
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
}
python3 -B tools/tally.py "$build/meson-logs/testlog.json" "${logs[@]}"
