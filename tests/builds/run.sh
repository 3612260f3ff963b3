#!/bin/bash
# SPDX-License-Identifier: MIT
# Other builds than the usual one: without a warning from Clang; and with every assertion and
# the undefined-behaviour sanitizer, under a little torture.  Prints TAP.  run.sh BUILD
# They are made beside BUILD, in BUILD-clang and BUILD-debug.
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$here/build}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
n=0
bad=0

tell() { # status name
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		grep -E 'warning|error|FAILED' "$log" | head -n 20 | sed 's/^/# /'
		bad=1
	fi
}

# make_build DIR COMPILER "OPTIONS" targets...
make_build() {
	local dir=$1 compiler=$2 options=$3
	shift 3
	[ -f "$dir/build.ninja" ] || {
		rm -rf "$dir"
		CC=$compiler meson setup "$dir" "$here" -Dwerror=true $options || return
	}
	ninja -C "$dir" "$@"
}

if command -v clang >/dev/null; then
	make_build "$build-clang" clang "" >"$log" 2>&1
	tell $? "clang builds everything without a warning"
else
	n=$((n + 1))
	echo "ok $n - clang build # SKIP clang is not installed"
fi

if command -v cppcheck >/dev/null; then
	# Suppressed: linker-made bounds, a bound that is not the array's, a loader it misreads.
	(cd "$here" && cppcheck -q -j2 --enable=warning,portability --error-exitcode=1 \
		--suppress=comparePointers --suppress=arrayIndexThenCheck \
		--suppress=uninitvar:src/store/probe.c -Iinclude -Isrc -D__x86_64__ src cmd) >"$log" 2>&1
	tell $? "cppcheck finds nothing"
fi

debug=(libextmem-preload.so extmem libem_island.a tests/torture/torture tests/torture/mm_semantics
	tests/signals/signals)
make_build "$build-debug" "${CC:-cc}" "-Ddebug_checks=true -Db_sanitize=undefined" \
	"${debug[@]}" >"$log" 2>&1
status=$?
tell $status "build with assertions and the undefined-behaviour sanitizer"
[ $status = 0 ] || { echo "1..$n"; exit 1; }

! nm -u "$build-debug/libem_island.a" | grep __ubsan >"$log"
tell $? "the sanitizer of the island traps, it calls nothing"

for delivery in upcall thread; do
	seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
	timeout -s KILL 100 "$build-debug/extmem" run --dram 2M --standby "30%,always" --delivery $delivery -- \
		"$build-debug/tests/torture/torture" --seed $seed --seconds "${DEBUG_SECONDS:-5}" \
		>"$log" 2>&1
	status=$?
	[ $status = 0 ] || sed 's/^/# /' "$log" | head -n 40
	tell $status "torture with assertions, $delivery, seed $seed (status $status)"
done
for test in torture/mm_semantics signals/signals; do
	timeout -s KILL 120 "$build-debug/extmem" run --dram 1M -- "$build-debug/tests/$test" \
		>"$log" 2>&1
	status=$?
	[ $status = 0 ] || grep -v '^ok' "$log" | sed 's/^/# /' | head -n 40
	tell $status "${test#*/} with assertions (status $status)"
done
echo "1..$n"
exit $bad
