#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# samples.sh
#
# Build the programs of samples/bus1, print the directory that they are in.

. "$(dirname "$0")/lib.sh"

need make gcc libc6-dev
out=$work/samples
lock "$out"
mkdir -p "$out"
say "building the samples"
make -C "$top/samples/bus1" OUTPUT="$out" -j"$jobs" >"$out.log" 2>&1 || {
	cat "$out.log" >&2
	die "the samples do not build"
}
grep 'warning:' "$out.log" >&2 || true
echo "$out"
