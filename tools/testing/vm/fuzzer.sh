#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# fuzzer.sh
#
# Build the fuzzer of tools/testing/fuzz, print the path of the program.

. "$(dirname "$0")/lib.sh"

need make gcc libc6-dev linux-libc-dev gawk
out=$work/fuzzer
mkdir -p "$out"
lock "$out"
make -C "$top/tools/testing/fuzz" -s OUTPUT="$out" >"$out/make.log" 2>&1 || {
	cat "$out/make.log" >&2
	die "the fuzzer does not build"
}
cat "$out/make.log" >&2
echo "$out/bus1-fuzz"
