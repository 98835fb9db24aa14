#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# mutants.sh KERNEL [MUTANT...]
# mutants.sh -n
#
# With -n, only see that all patches apply.
#
# See that the tests of the order catch a protocol that is broken on purpose: build
# the module with each of the patches in tools/testing/mutants/ (or those given, by
# name), and load one after the other in a machine. Each begins with
#
#	# Broken: what is wrong with it
#	# Falls: what does not hold any more, if anything
#	# With: other patches that come first
#	# Expect: caught, or harmless
#	# Test: PROGRAM or PROGRAM.CASE, as in lane.sh; several
#
# One to be caught must fail a case of its tests in each of three runs, and not merely
# crash or hang. The tests that follow are not run then, so the first should be the one
# that is best at it. A harmless one, and the module as it is, must pass all tests of the
# order, or those given.
# The last line is "N passed, N failed, N skipped".

. "$(dirname "$0")/lib.sh"

only_apply=
[ "${1:-}" != -n ] || { only_apply=1; shift; }
name=${1:-}
name=${name:-6.12}
shift || true
mutants=$top/tools/testing/mutants
dir=$work/mutants/$name
runs=3
# How long a test looks for what is wrong (BUS1_STRESS_SCALE): it stops when it is
# found, so this costs time only where nothing is.
scale_harmless=5 scale_caught=20
# Seconds that one test may take.
limit=900
order=(order order_attack order_stress)

# What a patch says about itself.
field() {
	sed -n "/^#/!q; s/^# $2: //p" "$mutants/$1.patch"
}

sources() {
	(cd "$1" && find Kbuild ipc include -type f \
		\( -name '*.[ch]' -o -name Kbuild -o -name Kconfig \) ! -name '*.mod.c')
}

apply() {
	local patch
	# One that is made of others only has nothing to add.
	for patch in $(field "$1" With) "$1"; do
		grep -q '^+++ ' "$mutants/$patch.patch" || continue
		patch -d "$2" -p1 -s -F0 --no-backup-if-mismatch -i "$mutants/$patch.patch" >&2 ||
			die "$patch.patch does not apply any more: the code has moved on"
	done
}

# Make the sources of the mutant $1 in a new directory.
make_tree() {
	rm -rf "$2"
	mkdir -p "$2"
	(cd "$top" && sources . | xargs cp --parents -t "$2")
	[ "$1" = unmodified ] || apply "$1" "$2"
}

# Build the mutant $1. Only what changed is built again.
build() {
	local tree=$dir/tree key file

	make_tree "$1" "$tree"
	# Without a change it would be one of those that are harmless.
	key=$( (cd "$tree" && sources . | sort | xargs sha256sum; cat "$kernel/release") |
		sha256sum | cut -c1-20)
	if [ ! -e "$dir/ko/$key" ]; then
		for file in $(sources "$tree"); do
			cmp -s "$tree/$file" "$dir/build/$file" && continue
			mkdir -p "$(dirname "$dir/build/$file")"
			cp "$tree/$file" "$dir/build/$file"
		done
		make -C "$kernel/build" M="$dir/build" -j"$jobs" KCFLAGS=-g0 \
			CONFIG_DEBUG_INFO_BTF_MODULES= modules \
			>"$dir/make.log" 2>&1 || {
			cat "$dir/make.log" >&2
			die "the mutant $1 does not build"
		}
		strip --strip-debug -o "$dir/ko/$key.$$" "$dir/build/ipc/bus1/bus1.ko"
		mv "$dir/ko/$key.$$" "$dir/ko/$key"
	fi
	cp "$dir/ko/$key" "$dir/modules/$1.ko"
}

# plan STEP MUTANT RUN TEST
plan() {
	local name=$2/$3/$4 program=test_${4%%.*} case=${4#*.}

	[ "$case" != "$4" ] || case=
	case $case in
	'') echo "$1 $limit $name /tests/native/$program" ;;
	*.*) echo "$1 $limit $name /tests/native/$program -r $case" ;;
	*) echo "$1 $limit $name /tests/native/$program -t $case" ;;
	esac
}

is_harmless() {
	[ "$1" = unmodified ] || [ "$(field "$1" Expect)" = harmless ]
}

tests_of() {
	local tests

	[ "$1" = unmodified ] || tests=$(field "$1" Test)
	printf '%s\n' "${tests:-$(printf '%s\n' "${order[@]}")}"
}

plan_mutant() {
	local run test step n=$runs

	echo "load /modules/$1.ko"
	if is_harmless "$1"; then
		n=1
		echo "env BUS1_STRESS_SCALE $scale_harmless"
	else
		echo "env BUS1_STRESS_SCALE $scale_caught"
	fi
	for run in $(seq $n); do
		step='test'
		for test in $(tests_of "$1"); do
			plan $step "$1" "$run" "$test"
			is_harmless "$1" || step=or
		done
	done
	echo unload
}

# Read what the tests print: a line for each, "MUTANT RUN TEST RESULT HOW", the result
# being ok, caught, nothing (of it has run), or died.
results() {
	awk '
	{ sub(/\r$/, "") }
	/^@begin / { name = $2; bad = 0; ran = 0; next }
	/^ok / { ran = 1 }
	/^not ok / { ran = 1; bad = 1 }
	/^@end / && $2 == name {
		split(name, part, "/")
		how = $3 " " $4
		if (how == "exit 0")
			result = !ran ? "nothing" : bad ? "died" : "ok"
		else
			result = bad && how == "exit 1" ? "caught" : "died"
		print part[1], part[2], part[3], result, how
		name = ""
	}
	END {
		split(name, part, "/")
		if (name)
			print part[1], part[2], part[3], "died the machine stopped"
	}' "$@"
}

passed=0 failed=0

say_result() {
	if [ "$2" = ok ]; then
		passed=$((passed + 1))
		printf '  %-34s %s\n' "$1" "$3"
	else
		failed=$((failed + 1))
		printf '  %-34s FAILED: %s\n' "$1" "$3"
	fi
}

# What became of the mutant $1?
judge() {
	local n=$runs run caught=0 ran=0 by

	is_harmless "$1" && n=1
	for run in $(seq $n); do
		grep -q "^$1 $run " "$dir/results" && ran=$((ran + 1))
		grep -q "^$1 $run [^ ]* caught" "$dir/results" && caught=$((caught + 1))
	done
	by=$(awk -v m="$1" '$1 == m && $4 == "caught" { print $3 }' "$dir/results" |
		sed 's/\.strangers_agree$//; s/\.has_a_total_order$//' | sort | uniq -c |
		awk '{ printf "%s%s %dx", sep, $2, $1; sep = ", " }')
	if [ "$ran" != "$n" ] || grep -q "^$1 [^ ]* [^ ]* nothing" "$dir/results"; then
		say_result "$1" bad "not all of its tests have run"
	elif grep -q "^$1 [^ ]* [^ ]* died" "$dir/results"; then
		say_result "$1" bad "$(sed -n "s/^$1 [^ ]* \([^ ]*\) died /\1: /p" \
			"$dir/results" | sort | uniq -c | xargs)"
	elif is_harmless "$1"; then
		if [ "$caught" = 0 ]; then
			say_result "$1" ok "passes, as it should"
		else
			say_result "$1" bad "it should pass: $by"
		fi
	elif [ "$caught" = "$n" ]; then
		say_result "$1" ok "caught $caught of $n: $by"
	else
		say_result "$1" bad "caught $caught of $n${by:+: $by}"
	fi
}

need patch binutils make gcc-12
if [ -n "$only_apply" ]; then
	failed=0
	for patch in "$mutants"/*.patch; do
		patch=${patch##*/}
		# One that does not apply does not keep the others from being tried.
		(make_tree "${patch%.patch}" "$work/mutants/apply") || failed=1
	done
	exit "$failed"
fi

exec 9>"$work/lock"
flock -n 9 || {
	say "waiting for another check of this tree"
	flock 9
}
mkdir -p "$dir/ko" "$dir/build"
rm -rf "$dir/modules"
mkdir "$dir/modules"

kernel=$("$here/kernel.sh" "$name")
if [ $# -gt 0 ]; then
	list=("$@")
else
	list=(unmodified)
	for patch in "$mutants"/*.patch; do
		patch=${patch##*/}
		list+=("${patch%.patch}")
	done
fi

say "building ${#list[@]} modules"
for mutant in "${list[@]}"; do
	[ "$mutant" = unmodified ] || [ -e "$mutants/$mutant.patch" ] ||
		die "there is no mutant '$mutant'"
	build "$mutant"
done
mapfile -t programs < <(for mutant in "${list[@]}"; do tests_of "$mutant"; done |
	sed 's/\..*//; s/^/test_/' | sort -u)
tests=$("$here/selftests.sh" "${programs[@]}")

# One that stops the machine does not keep the others from being tested.
left=("${list[@]}")
: >"$dir/results"
: >"$dir/log"
for boot in 1 2 3 4; do
	for mutant in "${left[@]}"; do
		plan_mutant "$mutant"
	done >"$dir/plan"
	"$here/image.sh" "$name" "$dir/image" "$dir/plan" "$dir/modules=modules" "$tests=tests"
	say "booting $(cat "$kernel/release"), $boot"
	"$here/qemu.sh" "$name" "$dir/image" "$dir" "${BUS1_TIMEOUT:-5400}" \
		</dev/null >"$dir/output" 2>"$dir/qemu" || true
	cat "$dir/output" >>"$dir/log"
	results "$dir/output" >>"$dir/results"
	grep -qx 'done' "$dir/verdict" && break
	mapfile -t left < <(for mutant in "${left[@]}"; do
		grep -q "^$mutant " "$dir/results" || echo "$mutant"
	done)
	[ ${#left[@]} -gt 0 ] || break
done

for mutant in "${list[@]}"; do
	judge "$mutant"
done
say "what the tests printed is in $dir/log"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
