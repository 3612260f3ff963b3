#!/bin/sh
# SPDX-License-Identifier: MIT
# Explores the page-state model exhaustively, prints TAP.  Usage: run.sh [--full]
# Exit 77 when Spin or a compiler is missing.
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { echo "1..0 # SKIP spin is not installed"; exit 77; }
command -v cc >/dev/null || { echo "1..0 # SKIP no C compiler"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cp "$here/pagestate.pml" "$dir"
cd "$dir" || exit 1
n=0
bad=0

# The compiler takes longer than a search that soon finds what it looks for.
opt=-O2

explore() { # flags... -> the verifier's output in ./out
	spin "$@" -a pagestate.pml >spin.out 2>&1 &&
		cc $opt -w -DSAFETY -DCOLLAPSE -o pan pan.c >>spin.out 2>&1 &&
		./pan -n -m4000000 -w24 >out 2>&1
}

tell() { # ok? name
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		bad=1
		sed 's/^/# /' spin.out out | tail -40
	fi
}

holds() {
	explore "$@" && grep -q 'errors: 0' out &&
		! grep -Eq 'max search depth too small|search was truncated|out of memory' out
	tell $? "holds: $* ($(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' out) states)"
	grep TOOK out >>taken
}

# Negative controls: a model that finds nothing proves nothing.
finds() {
	explore "$@"
	grep -Eq 'assertion violated' out
	tell $? "finds the fault: $*"
}

holds -DUSERS=2
holds -DUSERS=1 -DRECLAIMS=2
holds -DUSERS=1 -DSERVICE=1
holds -DUSERS=0 -DKERNELS=1 -DSERVICE=1
holds -DUSERS=0 -DKERNELS=1 -DRANGE=1
holds -DUSERS=1 -DKERNELS=1 -DRANGE=1 -DNO_WP
holds -DUSERS=1 -DSERVICE=1 -DRANGE=1 -DNO_WP
holds -DUSERS=1 -DSERVICE=1 -DSTANDBY
holds -DUSERS=1 -DRANGE=1 -DSTANDBY
holds -DUSERS=0 -DKERNELS=1 -DRECLAIMS=2 -DSTANDBY
holds -DUSERS=1 -DRECLAIMS=2 -DHANDLERS
holds -DUSERS=1 -DRANGE=1 -DHANDLERS
if [ "$1" = --full ]; then
	holds -DUSERS=1 -DSERVICE=1 -DRANGE=1
	holds -DUSERS=1 -DKERNELS=1 -DRANGE=1
	holds -DUSERS=2 -DSERVICE=1
	holds -DUSERS=1 -DKERNELS=1 -DSERVICE=1
	holds -DUSERS=2 -DSTANDBY
	holds -DUSERS=2 -DRANGE=1
	holds -DUSERS=1 -DKERNELS=1 -DRECLAIMS=2
fi
opt=-O0
finds -DUSERS=1 -DLATE_LIFT
finds -DUSERS=1 -DKERNELS=1 -DEARLY_HAZARD
finds -DUSERS=1 -DKERNELS=1 -DNO_SECOND_LOOK
finds -DUSERS=1 -DBLIND_DROP
finds -DUSERS=1 -DNOT_OWN
finds -DUSERS=1 -DLEAK
finds -DUSERS=1 -DRECLAIMS=2 -DHANDLERS -DSTEAL
finds -DUSERS=1 -DSTANDBY -DUNPROTECTED
finds -DUSERS=1 -DSTANDBY -DWRITTEN_BLINDLY
finds -DUSERS=1 -DRANGE=1 -DEXISTING_IS_WRITABLE
: >spin.out
"$here/check_table.py" "$here/../../src/core/pageword.h" "$here/pagestate.pml" taken >out 2>&1
tell $? "transitions of the model are those of pageword.h"
echo "1..$n"
exit $bad
