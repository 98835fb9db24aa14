#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# check.sh [-l] KERNELS [TEST...]
#
# All checks on all kernels, or the tests that are given on one kernel; -l leaves
# out the checks that need no machine. The last line is
# "N passed, N failed, N skipped".

. "$(dirname "$0")/lib.sh"

static=1
[ "${1:-}" != -l ] || { static=; shift; }
read -ra kernels <<<"${1:-}"
shift || true

# Two checks of the same tree would stand in each other's way.
exec 9>"$work/lock"
flock -n 9 || {
	say "waiting for another check of this tree"
	flock 9
}

passed=0 failed=0 skipped=0

# A step counts what it has found in a file; without one it is a failure.
count() {
	local p f s

	if [ -s "$1" ] && read -r p f s <"$1"; then
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		[ $((p + f + s)) -gt 0 ] && return
	fi
	failed=$((failed + 1))
	say "$2 did not finish"
}

if [ $# = 0 ]; then
	newest=
	[ ${#kernels[@]} -gt 0 ] || { kernels=(6.1 6.12 7.3) newest=7.3; }
	if [ -n "$static" ]; then
		rm -f "$work/static/sums"
		"$here/static.sh" "${kernels[@]}" 9>&- || true
		count "$work/static/sums" "static checks"
	fi
else
	newest=
	[ ${#kernels[@]} -gt 0 ] || kernels=(6.12)
fi

for name in "${kernels[@]}"; do
	rm -f "$work/lane/$name/sums"
	# 32-bit programs, and higher counts, take time: make check-matrix has them.
	if [ "$name" = "$newest" ]; then
		export BUS1_ABIS=${BUS1_ABIS:-native} BUS1_STRESS_SCALE=${BUS1_STRESS_SCALE:-1}
	fi
	"$here/lane.sh" "$name" "$@" 9>&- || true
	count "$work/lane/$name/sums" "kernel $name"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
