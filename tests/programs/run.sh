#!/bin/sh
# SPDX-License-Identifier: MIT
# Real programs under a budget of 40 % of what they touch; see run.py.
# run.sh [--build DIR] [--quick] [--only NAME,...] [--percent N] [--sort-mb N] [--work DIR]
exec /usr/bin/python3 -B "$(dirname "$0")/run.py" "$@"
