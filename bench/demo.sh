#!/bin/sh
# SPDX-License-Identifier: MIT
# What extmem does, on a real program, in under three minutes: PageRank with all the memory
# it wants, with half of it under Linux swap, and with half of it under extmem.
# usage: demo.sh [BUILD_DIR]      SCALE=21 makes the graph twice as large (default 20)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../build}
exec python3 -B "$here/lib/demo.py" --build "$build" --scale "${SCALE:-20}"
