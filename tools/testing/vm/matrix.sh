#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# matrix.sh [-t] [NAME...]
# matrix.sh table | readme | check
#
# Build the module for each kernel of the table `kernels` that is Debian's, or for
# those given, boot it, and run all tests. What was found replaces the lines of these
# kernels in the file `matrix`; then the table in README.md is written anew, and printed.
# The last line is "N passed, N failed, N skipped".
#
# -t: take what the last `make check` of this tree has found, instead of booting again.
# table: print the table. readme: write it into README.md. check: print how README.md
# differs from it.

. "$(dirname "$0")/lib.sh"

results=$here/matrix
readme=$top/README.md
begin='<!-- result of make check-matrix: begin -->'
end='<!-- result of make check-matrix: end -->'

# All kernels that are not built here.
names() {
	list kernels | awk '$3 !~ /^linux-source-/ { print $1 }'
}

# run NAME: build, look at what was built, boot, test. Print a line for `matrix`:
# the name, release, compiler, cases of (module, machine, 64-bit, 32-bit) as
# PASSED/FAILED/SKIPPED, the date, the hash that modinfo gives of the sources.
run() {
	local name=$1 lane=$work/lane/$1 ko hash=- p f s tp tf ts sums=()

	rm -f "$work"/static/{sums,ko}
	"$here/static.sh" -m "$name" >&2 || true
	ko=$(cat "$work/static/ko" 2>/dev/null || true)
	if [ -z "$take" ]; then
		rm -f "$lane"/sums "$lane"/sums.tests
		BUS1_MODULE=$ko BUS1_STRESS_SCALE=${BUS1_STRESS_SCALE:-1} \
			BUS1_SLOW=${BUS1_SLOW:-4} "$here/lane.sh" "$name" >&2 || true
	fi

	# What did not finish has failed.
	p=0 f=1 s=0
	[ ! -s "$work/static/sums" ] || read -r p f s <"$work/static/sums"
	# That of Debian 12 has a test of its own, check-install.
	row "$name"
	if [ -n "$suite" ] && [ -z "$compiler" ]; then
		if "$here/dkms.sh" "$name" >&2; then p=$((p + 1)); else f=$((f + 1)); fi
	fi
	compiler=-
	sums+=("$p/$f/$s")
	p=0 f=1 s=0 tp=0 tf=0 ts=0
	traits "$name"
	if [ -s "$lane/sums" ]; then
		read -r p f s <"$lane/sums"
		# What has no column of its own counts among the others, but for the library with
		# sanitizers: that is no matter of a kernel.
		read -r tp tf ts < <(awk -v abis=" $abis$sanitized " '
			NR > 1 && index(abis, " " $1 " ") { p += $2; f += $3; s += $4 }
			END { print p + 0, f + 0, s + 0 }' "$lane/sums.tests")
	fi
	sums+=("$((p - tp))/$((f - tf))/$((s - ts))")
	for abi in $abis; do
		sums+=("$(awk -v abi="$abi" '$1 == abi { print $2 "/" $3 "/" $4; found = 1 }
			END { if (!found) print "0/1/0" }' "$lane/sums.tests" 2>/dev/null ||
			echo 0/1/0)")
	done
	if [ -s "$ko" ]; then
		# GCC: (Debian 12.2.0-14) 12.2.0, or Debian clang version 19.1.7 (...)
		compiler=$(readelf -p .comment "$ko" |
			sed -nE 's/.*GCC: .*\) ([0-9.]+)$/gcc-\1/p; s/.*clang version ([0-9.]+).*/clang-\1/p' |
			sed 1q)
		hash=$(modinfo -F srcversion "$ko")
	fi
	echo "$name $(cat "$("$here/kernel.sh" "$name")/release") $compiler ${sums[*]} $(date -u +%F) $hash"
}

# Replace the line of a kernel, keep the order of `kernels`.
record() {
	local name

	{
		sed -n '/^#/p' "$results"
		names | while read -r name; do
			if [ "$name" = "${1%% *}" ]; then
				echo "$1"
			else
				grep "^$name " "$results" || true
			fi
		done
	} >"$results.$$"
	mv "$results.$$" "$results"
}

cell() {
	local p f s

	IFS=/ read -r p f s <<<"$1"
	printf '%s' "$p"
	[ "$f" = 0 ] || printf ', %s FAILED' "$f"
	[ "$s" = 0 ] || printf ', %s skipped' "$s"
}

table() {
	local name release cc module machine long short date

	echo '| kernel | Debian package | machine | compiler | module and machine | 64-bit tests | 32-bit tests | on |'
	echo '|---|---|---|---|---|---|---|---|'
	list matrix | while read -r name release cc module machine long short date _; do
		row "$name"
		traits "$name"
		case $arch in
		amd64) arch=x86-64 ;;
		esac
		echo "| ${release%%[-+]*} | \`$package\` of ${suite:-bookworm} | $arch | ${cc/-/ } |" \
			"$(cell "$module") + $(cell "$machine") | $(cell "$long") | $(cell "$short") | $date |"
	done
}

# README.md, with the table where it has to be.
with_table() {
	awk -v begin="$begin" -v end="$end" -v table="$(table)" '
		$0 == end { inside = 0 }
		!inside
		$0 == begin { inside = 1; print ""; print table; print "" }' "$readme"
}

# README.md shows what is in `matrix`, and there is nothing else there than kernels that
# can be tested again. A kernel that was not tested yet is in neither.
check() {
	list matrix | cut -d' ' -f1 | grep -vxF -f <(names) | sed 's/$/: not in kernels/' || true
	grep -qxF "$begin" "$readme" || echo "README.md has no place for it"
	diff "$readme" <(with_table) || true
}

case ${1:-} in
table | check)
	"$1"
	exit
	;;
readme)
	with_table >"$work/README.md"
	cat "$work/README.md" >"$readme"
	exit
	;;
esac

take=
[ "${1:-}" != -t ] || { take=1; shift; }
if [ $# = 0 ]; then
	mapfile -t all < <(names)
	set -- "${all[@]}"
fi
for name; do
	names | grep -qxF "$name" || die "no kernel '$name' in the matrix, these are: $(names | xargs)"
done
exec 9>"$work/lock"
flock -n 9 || {
	say "waiting for another check of this tree"
	flock 9
}

passed=0 failed=0 skipped=0
for name; do
	say "==== $name"
	line=$(run "$name" 9>&-)
	record "$line"
	while IFS=/ read -r p f s; do
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	done < <(cut -d' ' -f4-7 <<<"$line" | tr ' ' '\n')
done
"$here/matrix.sh" readme
table
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
