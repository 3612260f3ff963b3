#!/bin/bash
# SPDX-License-Identifier: MIT
# The torture matrix: delivery x policy x prefetcher x (io_uring, plain), half of it with pages on standby,
# another half with pages mapped writable when they are read; kernels imitated by masking features, root and an ordinary user.  Prints TAP.
#
#   run_torture.sh [BUILD]
#     SECONDS_PER_CELL  length of each torture run (default 2; with STRESS set 60)
#     STRESS            repeat the matrix until a cell fails or STRESS_ROUNDS are over (1)
#     CELLS             only cells whose name matches this regular expression
#     SEED              instead of a new one for each cell
build=${1:-${BUILD:-build}}
case $build in /*) ;; *) build=$PWD/$build ;; esac
seconds=${SECONDS_PER_CELL:-${STRESS_SECONDS:-${STRESS:+60}}}
seconds=${seconds:-2}
rounds=${STRESS_ROUNDS:-1}
extmem=$build/extmem
tests=$build/tests/torture
standby="--standby 30%,always"
expected="--expect-writes always"
n=0
bad=0

[ -x "$extmem" ] && [ -x "$tests/torture" ] || {
	echo "1..0 # SKIP $extmem or $tests/torture is not built"
	exit 77
}

# A program that blocks all signals inside the engine dies of SIGKILL only.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/torture-XXXXXX") || exit 1
chmod 1777 "$work"
trap 'rm -rf "$work"' EXIT

tell() { # status name log
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	elif [ "$1" -eq 77 ]; then
		echo "ok $n - $2 # SKIP $(tail -n 1 "$3")"
	else
		echo "not ok $n - $2 (status $1)"
		# TAP inside is shown as comments; the seed is in the first line
		{ head -n 1 "$3"; tail -n +2 "$3" | tail -n 40; } | sed 's/^/# /'
		bad=1
	fi
}

wanted() {
	[ -z "$CELLS" ] || echo "$1" | grep -Eq -- "$CELLS"
}

as_user() {
	if [ -n "$user" ]; then
		setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
	else
		"$@"
	fi
}

# cell NAME LIMIT PROGRAM...: $mask, $user and $opts hold what the cell is about
cell() {
	local name=$1 limit=$2 status
	shift 2
	wanted "$name" || return
	as_user env TMPDIR="$work" ${mask:+EXTMEM_MASK="$mask"} timeout -s KILL "$limit" \
		"$extmem" run $opts --swap "$work" -- "$@" >"$work/log" 2>&1
	status=$?
	tell $status "$name" "$work/log"
	rm -rf "$work"/syscalls-* "$work"/torture-*
}

# What is wrong with it is left in a file.
one() { # program test
	local program=$1 test=$2 log=$work/one-$2 status
	as_user env TMPDIR="$work" ${mask:+EXTMEM_MASK="$mask"} timeout -s KILL 40 \
		"$extmem" run $opts --swap "$work" -- "$program" "$test" >"$log" 2>&1
	status=$?
	[ $status = 0 ] || {
		echo "$test: status $status"
		grep -v '^ok\|^1\.\.' "$log" | tail -n 5 | cut -c 1-200
	} >"$work/failed-$test"
	rm -f "$log"
}

# Each test of a program in a process of its own, so that one that hangs hides no other; as many at once as there
# are processors: most of them wait.
each() { # name program
	local name=$1 program=$2 test left failed
	wanted "$name" || return
	left=$(nproc)
	for test in $("$program" --list); do
		[ "$left" -gt 0 ] || { wait -n; left=1; }
		one "$program" "$test" &
		left=$((left - 1))
	done
	wait
	failed=$(ls "$work" | grep -c '^failed-')
	cat "$work"/failed-* >"$work/log" 2>/dev/null
	rm -f "$work"/failed-*
	tell "$failed" "$name" "$work/log"
}

torture() { # name args...
	local name=$1 seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
	shift
	cell "torture $name, seed $seed" $((seconds * 4 + 60)) \
		"$tests/torture" --seed "$seed" --seconds "$seconds" --stall 30 "$@"
}

# Half of the sixteen, such that each pair of choices is met; all of them with STRESS.
in_half() {
	local parity=0 choice
	for choice in "$@"; do
		case $choice in thread | fifo | none | uring) parity=$((1 - parity)) ;; esac
	done
	[ $parity = 0 ] || [ -n "$STRESS" ]
}

matrix() {
	local delivery policy prefetch
	for delivery in upcall thread; do
		for policy in 2q fifo; do
			for prefetch in sequential none; do
				for mask in "" uring; do
					in_half $delivery $policy $prefetch $mask || continue
					opts="--dram 2M --delivery $delivery --policy $policy"
					opts="$opts --prefetch $prefetch"
					[ $prefetch = none ] && opts="$opts $standby"
					[ $policy = fifo ] && opts="$opts $expected"
					torture "$delivery $policy $prefetch${mask:+ plain}"
				done
			done
		done
	done
}

older_kernels() {
	local delivery
	for delivery in upcall thread; do
		for mask in move process_madvise wp move,process_madvise,wp \
			move,process_madvise,wp,uring; do
			case $delivery,$mask in thread,move | thread,process_madvise) [ -n "$STRESS" ] || continue ;; esac
			opts="--dram 2M --delivery $delivery"
			torture "$delivery without $mask"
		done
	done
}

# What the matrix does not reach: tiny and larger budgets, timers, one and many threads.
shapes() {
	mask=
	opts="--dram 1M"
	torture "smallest budget" --bytes 16M
	opts="--dram 2M $standby"
	torture "timer" --timer
	opts="--dram 2M $standby $expected"
	torture "twelve threads, timer" --threads 12 --timer
	opts="--dram 2M $standby"
	torture "one thread" --threads 1
	torture "races only" --ops count,first,seq,rw --threads 6
	opts="--dram 2M $standby"
	torture "races only, standby" --ops count,first,seq,rw --threads 6
	opts="--dram 2M"
	torture "system calls only" --ops sys,rw,advise
	opts="--dram 2M $expected"
	torture "races only, mapped writable" --ops count,first,seq,rw --threads 6
	opts="--dram 2M $standby"
	torture "mappings only" --ops map,remap,prot,advise,rw
	torture "forks only" --ops fork,rw,malloc
	opts="--dram 8M"
	torture "larger" --bytes 32M --threads 6
}

ordinary_user() {
	[ "$(id -u)" = 0 ] || return
	user=nobody
	as_user test -x "$extmem" || {
		echo "# $extmem cannot be reached by an ordinary user: cells left out"
		user=
		return
	}
	mask=
	opts="--dram 2M"
	torture "ordinary user"
	torture "ordinary user, timer" --timer
	each "mm_semantics ordinary user" "$tests/mm_semantics"
	each "syscalls ordinary user" "$tests/syscalls"
	cell "fork_deep ordinary user" 240 "$tests/fork_deep"
	mask=move,process_madvise,wp,uring
	torture "ordinary user without $mask"
	user=
}

# Reads that fail at random, and writes: never wrong memory.
lossy_cell() { # name rate args...
	local name=$1 rate=$2 seed=${SEED:-$((RANDOM * 32768 + RANDOM))} when="when=$work/switch"
	shift 2
	export LOSSY_SWITCH=$work/switch
	export EXTMEM_INJECT="read:eio,rate=$rate,seed=$seed,$when;write:eio,rate=50,$when"
	cell "lossy $name, seed $seed" $((seconds * 4 + 60)) \
		"$tests/lossy" --seed "$seed" --seconds "$seconds" "$@"
	unset LOSSY_SWITCH EXTMEM_INJECT
}

lossy() {
	opts="--dram 2M"
	for mask in "" uring wp; do
		lossy_cell "without ${mask:-nothing}" 400
	done
	mask=
	opts="--dram 1M --prefetch none $standby"
	lossy_cell "most reads fail" 800
	opts="--dram 2M --delivery thread"
	lossy_cell "handler threads" 400 --sticky
}

small_cell() { # delivery
	opts="--dram 1M --delivery $1 $standby"
	each "mm_semantics $1 without ${mask:-nothing}" "$tests/mm_semantics"
	each "syscalls $1 without ${mask:-nothing}" "$tests/syscalls"
	opts="--dram 2M --delivery $1"
	cell "fork_deep $1 without ${mask:-nothing}" 240 "$tests/fork_deep"
}

small_tests() {
	for mask in "" wp move,process_madvise,wp,uring; do
		small_cell upcall
	done
	mask=
	small_cell thread
	opts="--dram 2M --delivery upcall"
	each "processes upcall" "$tests/processes"
	opts="--dram 2M --delivery thread"
	each "processes thread" "$tests/processes"
	opts="--dram 2M --delivery upcall"
	cell "fork_deep direct" 240 "$tests/fork_deep" --direct 1
}

user=
while [ "$rounds" -gt 0 ] && [ $bad = 0 ]; do
	small_tests
	matrix
	older_kernels
	shapes
	ordinary_user
	lossy
	rounds=$((rounds - 1))
done
echo "1..$n"
exit $bad
