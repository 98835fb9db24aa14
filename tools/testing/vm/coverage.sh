#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# coverage.sh [NAME]
#
# Which lines of the module are reached by the selftests (those of FUZZ_TESTS, or
# all), the fuzzer's corpus, with and without failures injected into it, and loading
# the module with failing allocations. NAME is a kernel of the table `kernels` that has
# GCOV: `um` is much faster than `fuzz`, and reaches nothing that only 32-bit programs
# do. Print a table, and the lines that are left.

. "$(dirname "$0")/lib.sh"

name=${1:-fuzz}
traits "$name"
fuzz=$top/tools/testing/fuzz
dir=$work/coverage
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -n 9 || die "somebody else measures coverage: $dir"
rm -rf "$dir"/{output,console,verdict,sums,counts,modules,files}
mkdir -p "$dir"/{modules,files,counts}

need gcc-12 python3
fuzzer=$("$here/fuzzer.sh")
# Lines of a function that is inlined before they are counted count for nobody.
ko=$("$here/module.sh" "$name" gcov GCOV_PROFILE=y KCFLAGS=-fno-early-inlining)
read -ra programs <<<"${FUZZ_TESTS:-}"
tests=$("$here/selftests.sh" -a "$abis" ${programs[@]+"${programs[@]/#/test_}"})
cp "$ko" "$dir/modules/"
cp "$fuzzer" "$fuzz/gcov.sh" "$dir/files/"
for file in "$fuzz"/corpus/*; do
	(cat "$file"; echo) >>"$dir/files/programs"
done

# What a program has to be told. On `um` a page fault in access to user memory that fails
# for lack of memory is an oops, of the architecture's: that variant of test_fail_nth makes
# page faults fail.
arguments() {
	case $name.$1 in
	um*.fail_nth) echo " -V mmap" ;;
	esac
}

{
	echo "demo 300 /fuzz/bus1-fuzz load /modules/bus1.ko"
	echo "load /modules/bus1.ko"
	[ -z "$scale" ] || echo "env BUS1_STRESS_SCALE $scale"
	for abi in $abis; do
		[ ${#programs[@]} != 0 ] || mapfile -t programs < <(sed 's/^test_//' "$tests/$abi/programs")
		for program in "${programs[@]}"; do
			echo "test 300 $abi/test_$program /tests/$abi/test_$program$(arguments "$program")"
		done
	done
	echo "demo 600 /fuzz/bus1-fuzz replay 2 /fuzz/programs"
	echo "demo 600 /fuzz/bus1-fuzz sweep /fuzz/programs"
	echo finish
	echo "demo 300 /bin/sh /fuzz/gcov.sh"
} >"$dir/plan"
"$here/image.sh" "$name" "$dir/image" "$dir/plan" "$dir/modules=modules" \
	"$dir/files=fuzz" "$tests=tests"

say "booting $(cat "$("$here/kernel.sh" "$name")/release")"
"$here/qemu.sh" "$name" "$dir/image" "$dir" "${BUS1_TIMEOUT:-1500}" </dev/null \
	>"$dir/output" 2>"$dir/qemu" || true
awk -f "$here/ktap.awk" -v prefix="$name " -v sums="$dir/sums" -v verbose= \
	"$dir/output" | grep -aE 'FAILED|not ok' || true
grep -aE '^(fuzz:|FINDING)' "$dir/output" || true
# Where it cannot load the module for lack of memory, the kernel shows where it was.
if sed '1,/init: load /s/Call Trace:/trace:/' "$dir/console" |
	grep -aE -f <(list log-failures) >"$dir/log"; then
	sed 's/^/    /;20q' "$dir/log"
	say "the kernel complained: $dir/console"
fi

sed -n '/^@gcov\r*$/,/^@gcov end/p' "$dir/output" | tr -d '\r' | grep -v '^@' |
	base64 -d | tar -xzf - -C "$dir/counts" ||
	die "no counts came out of the machine, see $dir/output and $dir/console"
"$fuzz/line-coverage" "$top" "$(dirname "$ko")" "$dir/counts" gcov-12 | tee "$dir/lines"
