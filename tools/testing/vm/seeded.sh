#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# seeded.sh [BUG...]
# seeded.sh -n
#
# With -n, only see that all patches apply.
#
# See that a lane finds what it looks for: put each of the bugs in
# tools/testing/seeded/ (or those given, by name) into a copy of this tree, and run
# the lane there. Each patch begins with
#
#	# Bug: what is wrong
#	# Lane: the kernel of the table `kernels` that has to find it
#	# Test: the tests to run, as in lane.sh
#	# Report: what the kernel's log has to say, an extended regular expression
#
# The last line is "N passed, N failed, N skipped".

. "$(dirname "$0")/lib.sh"

only_apply=
[ "${1:-}" != -n ] || { only_apply=1; shift; }
seeded=$top/tools/testing/seeded
passed=0 failed=0

field() {
	sed -n "/^#/!q; s/^# $2: //p" "$seeded/$1.patch"
}

# Make a tree in the directory $2 that has the bug $1.
make_tree() {
	rm -rf "$2"
	mkdir -p "$2"
	# Patches are no part of it: a lane must not depend on them.
	(cd "$top" && find Kbuild ipc include tools/testing/vm tools/testing/selftests \
		-type f \( -name '*.[ch]' -o -name 'K*' -o -name Makefile -o -path '*/vm/*' \
		-o -name settings \) ! -name '*.mod.c' -exec cp --parents -t "$2" {} +)
	patch -d "$2" -p1 -s -F0 --no-backup-if-mismatch -i "$seeded/$1.patch" >&2 ||
		die "$1.patch does not apply any more: the code has moved on"
}

# Run the lane of the bug $1 in a tree that has it.
run() {
	local tree=$work/seeded

	make_tree "$1" "$tree"
	# shellcheck source=/dev/null # this one
	lane=$(. "$tree/tools/testing/vm/lib.sh" && echo "$work/lane")/$(field "$1" Lane)
	rm -f "$lane/findings"
	# shellcheck disable=SC2046 # a list
	BUS1_CACHE=$cache "$tree/tools/testing/vm/lane.sh" "$(field "$1" Lane)" \
		$(field "$1" Test) >"$work/seeded.log" 9>&- || true
}

need patch
if [ $# = 0 ]; then
	for patch in "$seeded"/*.patch; do
		patch=${patch##*/}
		set -- "$@" "${patch%.patch}"
	done
fi
for bug; do
	[ -e "$seeded/$bug.patch" ] || die "there is no bug '$bug'"
done
if [ -n "$only_apply" ]; then
	for bug; do
		# One that does not apply does not keep the others from being tried.
		(make_tree "$bug" "$work/seeded-apply") || failed=1
	done
	exit "$failed"
fi

exec 9>"$work/lock"
flock -n 9 || {
	say "waiting for another check of this tree"
	flock 9
}

for bug; do
	run "$bug"
	n=$(grep -cE "$(field "$bug" Report)" "$lane/findings" 2>/dev/null || true)
	if [ "${n:-0}" -gt 0 ] && ! grep -qE 'kernel log +ok' "$work/seeded.log"; then
		passed=$((passed + 1))
		printf '  %-36s   found, %d times\n' "$bug" "$n"
	else
		failed=$((failed + 1))
		printf '  %-36s   FAILED: the lane did not find it\n' "$bug"
		sed 's/^/    /' "$work/seeded.log" | tail -n 40
	fi
done

# What that tree had built for it is of no use any more.
[ "$failed" -gt 0 ] || [ -z "${lane:-}" ] || rm -rf "${lane%/lane/*}"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
