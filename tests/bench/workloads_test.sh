#!/bin/sh
# SPDX-License-Identifier: MIT
# The workloads measure nothing unless they are right natively: the graph programs print the
# same with any number of threads, and touch finds its memory as it left it.
# usage: workloads_test.sh PROGRAM_DIR
set -eu
programs=$1
failed=0

fail() {
	echo "FAIL: $*"
	failed=1
}

same_for_all_threads() {
	first=$("$programs/$@" --threads 1 2>/dev/null)
	case $first in
	*checksum*) ;;
	*) fail "$1 prints no checksum" ;;
	esac
	for threads in 2 3 8; do
		other=$("$programs/$@" --threads $threads 2>/dev/null)
		[ "$first" = "$other" ] || fail "$* differs with $threads threads"
	done
}

prints_timing() {
	"$programs/$@" 2>&1 >/dev/null | grep -q '^timing generate_s=.* build_s=.* kernel_s=' ||
		fail "$* prints no timing line"
}

touches() {
	out=$("$programs/touch" --bytes 8M --touches 20000 "$@") || fail "touch $* exits with $?"
	case $out in
	*'"errors": 0}') ;;
	*) fail "touch $*: $out" ;;
	esac
}

refused() {
	status=0
	"$programs/$@" >/dev/null 2>&1 || status=$?
	[ $status -eq 2 ] || fail "$* exits with $status, not 2"
}

same_for_all_threads lookup --points 300 --lookups 20000
prints_timing lookup --points 50 --lookups 100
refused lookup --nuclides 3

if [ -x "$programs/pagerank" ]; then
	# An odd scale, one with few buckets, one that needs more of them than the least.
	for scale in 1 11 19; do
		same_for_all_threads pagerank --scale $scale --degree 8 --iterations 3
		same_for_all_threads bfs --scale $scale --degree 8 --iterations 2
	done
	prints_timing pagerank --scale 8
	prints_timing bfs --scale 8
	[ "$("$programs/pagerank" --scale 10 --seed 1 2>/dev/null)" != \
	  "$("$programs/pagerank" --scale 10 --seed 2 2>/dev/null)" ] ||
		fail "the seed does not change the graph"
	refused pagerank --scale 27
	refused pagerank --scale ten
else
	echo "note: built without OpenMP, the graph programs are left out"
fi

for pattern in seq-read seq-write rand-read rand-write hot back stride=17 stride=5000 two-streams
do
	touches --pattern $pattern
	touches --pattern $pattern --threads 3
done
touches --pattern hot --writes 50 --malloc
touches --pattern rand-read --writes 60 --update --compressible 67
touches --pattern rand-read --writes 30 --verify sample
refused touch --pattern sideways
refused touch --bytes 4K --threads 2
refused touch --writes 101
refused touch --compressible 91

for operation in read write; do
	"$programs/minorfault" --op $operation --pages 256 --threads 2 | grep -q '"errors": 0}' ||
		fail "minorfault --op $operation"
done
"$programs/minorfault" --op write --pages 256 --shuffle | grep -q '"errors": 0}' ||
	fail "minorfault --shuffle"
refused minorfault --pages 65
refused minorfault --pages 192 --shuffle

for regions in 1 10 1000; do
	"$programs/growth" --space 256M --pages 4096 --run 1 --regions $regions --rounds 2 |
		grep -q '"errors": 0}' || fail "growth --regions $regions"
done
"$programs/growth" --space 1G --pages 4096 --run 64 | grep -q '"errors": 0}' || fail growth
refused growth --pages 1000
refused growth --space 1M --pages 1024
refused growth --space 16M --pages 1024 --run 1 --regions 4096

# A server that is right, and one that is not.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if command -v redis-server >/dev/null; then
	(cd "$work" && exec redis-server --port 0 --unixsocket "$work/right" --save "" \
		--loglevel warning >/dev/null) &
	"$programs/redisload" --socket "$work/right" --keys 2000 --pipeline 16 --sets 50 \
		--warmup 0.1 --seconds 0.3 | grep -q '"errors": 0}' || fail "redisload"
	wait $! || fail "redis-server was not told to end"
else
	echo "note: redis-server is not installed, its client is left out"
fi
python3 -B "$(dirname "$0")/wrong_redis.py" "$work/wrong" &
if "$programs/redisload" --socket "$work/wrong" --keys 10 --value 64 --connections 1 --sets 0 \
	--warmup 0 --seconds 0.1 >"$work/out" 2>&1; then
	fail "redisload does not notice wrong values"
fi
grep -q "not what was written" "$work/out" || fail "redisload: $(cat "$work/out")"
wait $! || true
refused redisload
exit $failed
