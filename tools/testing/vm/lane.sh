#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# lane.sh NAME [TEST...]
#
# Run tests on a kernel of the table `kernels`, or on one in a directory like those
# of kernel.sh, which also has the bus1.ko to load if bus1 is not built in; all or those given: as PROGRAM,
# as PROGRAM.CASE, PROGRAM.FIXTURE.CASE or PROGRAM.FIXTURE.VARIANT.CASE; as kunit
# or kunit.SUITE or kunit.SUITE.CASE for those that are part of the module. Then
# prove that nothing is left over. Print what happened to a person, and write
# the sums (passed, failed, skipped) to $work/lane/NAME/sums.
#
# BUS1_MODULE is the module, if it is built already. BUS1_SLOW=N gives everything N times
# as much time, for busy machines.

. "$(dirname "$0")/lib.sh"

kernel=${1:?}
name=${kernel##*/}
shift
dir=$work/lane/$name
builtin=
[ "$kernel" = "$name" ] || [ -e "$kernel/bus1.ko" ] || builtin=1
mkdir -p "$dir"
rm -f "$dir"/{sums,sums.tests,output,console,verdict,modules/bus1.ko}

selftests=$top/tools/testing/selftests/bus1
limit=$(sed -n 's/^timeout=//p' "$selftests/settings" 2>/dev/null || true)
traits "$name"
# The full counts of test_stress take their time.
[ "${scale:-0}" -lt 10 ] || slow=$((slow * 12))
# On a busy machine everything takes longer.
slow=$((slow * ${BUS1_SLOW:-1}))
limit=$((${limit:-300} * slow))
# A machine that hangs is killed after that many seconds. That is later than a program that
# hangs, whatever the kernel: the others have their time, too.
deadline=${BUS1_TIMEOUT:-$((1200 + 600 * slow + limit))}

# plan ABI PROGRAM [CASE]
plan() {
	case ${3:-} in
	'') echo "test $limit $1/$2 /tests/$1/$2" ;;
	*.*) echo "test $limit $1/$2 /tests/$1/$2 -r $3" ;;
	*) echo "test $limit $1/$2 /tests/$1/$2 -t $3" ;;
	esac
}

plan_all() {
	local abi program i

	echo "slack $slack"
	if [ -n "$builtin" ]; then echo builtin; else echo "load /modules/bus1.ko"; fi
	[ -z "$kunit" ] || echo kunit
	[ -z "$scale" ] || echo "env BUS1_STRESS_SCALE $scale"
	for abi in $abis; do
		if [ $# = 0 ]; then
			while read -r program; do
				plan "$abi" "$program"
			done <"$tests/$abi/programs"
		fi
		for i in "${!programs[@]}"; do
			grep -qx "${programs[i]}" "$tests/$abi/programs" || continue
			plan "$abi" "${programs[i]}" "${cases[i]}"
		done
	done
	echo finish
}

# Unit tests run by themselves, when the module is loaded. `kunit` is what the
# kernel has to be told: without tests given, nothing but that they may.
kunit=
if [ $# = 0 ] && grep -qs '^CONFIG_KUNIT=' "$("$here/kernel.sh" "$kernel")/build/.config"; then
	kunit=kunit.enable=1
fi

programs=() cases=()
for spec; do
	# KUnit takes one filter: if there are several such tests, run all of them.
	case $spec in
	kunit) filter=kunit.enable=1 ;;
	kunit.*.*) filter="kunit.filter_glob=bus1_${spec#kunit.}" ;;
	kunit.*) filter="kunit.filter_glob=bus1_${spec#kunit.}.*" ;;
	*) filter= ;;
	esac
	if [ -n "$filter" ]; then
		[ -z "$kunit" ] || filter=kunit.enable=1
		kunit=$filter
		continue
	fi
	program=test_${spec%%.*}
	program=${program/#test_test_/test_}
	[ -e "$selftests/$program.c" ] ||
		die "no test program '$program', these are known:" \
			"$(cd "$selftests" && echo test_*.c | sed 's/\.c\>//g')"
	programs+=("$program")
	case $spec in
	*.*) cases+=("${spec#*.}") ;;
	*) cases+=("") ;;
	esac
done

# Tests of the kernel gain nothing by sanitizers of programs.
case " ${programs[*]} " in
"  " | *" test_libbus1 "*) abis+=$sanitized ;;
esac

mkdir -p "$dir/modules"
if [ "$kernel" = "$name" ]; then
	ko=${BUS1_MODULE:-$("$here/module.sh" "$name")}
	cp "$ko" "$dir/modules/"
elif [ -z "$builtin" ]; then
	cp "$kernel/bus1.ko" "$dir/modules/"
fi
contents=("$dir/modules=modules")
if [ $# = 0 ] || [ ${#programs[@]} -gt 0 ]; then
	tests=$("$here/selftests.sh" -a "$abis" "${programs[@]}")
	contents+=("$tests=tests")
fi
plan_all "$@" >"$dir/plan"
"$here/image.sh" "$kernel" "$dir/image" "$dir/plan" "${contents[@]}"

# Debian's awk collects its input before it looks at it, unless told otherwise.
awk=(awk)
if command -v mawk >/dev/null; then awk=(mawk -W interactive); fi

release=$(cat "$("$here/kernel.sh" "$kernel")/release")
say "booting $release"
touch "$dir/output"
status=0
BUS1_KUNIT=$kunit "$here/qemu.sh" "$kernel" "$dir/image" "$dir" "$deadline" </dev/null 2>"$dir/qemu" |
	tee "$dir/output" |
	"${awk[@]}" -f "$here/ktap.awk" -v prefix="$name " -v sums="$dir/sums.tests" \
		-v skips="$here/skips" -v kernel="$name" \
		-v verbose="$([ $# = 0 ] || echo 1)" || status=$?
[ "$status" = 0 ] || cat "$dir/qemu" >&2

# What is asked of the machine as a whole is a list of cases, too.
read -r passed failed skipped <"$dir/sums.tests"
check() {
	if [ "$2" = 0 ]; then
		passed=$((passed + 1))
		printf '  %-36s   ok%s\n' "$name $1" "${3:+ ($3)}"
	else
		failed=$((failed + 1))
		printf '  %-36s   FAILED%s\n' "$name $1" "${3:+: $3}"
	fi
}

touch "$dir/verdict" "$dir/console"
steps=(load processes slabs-empty unload gone memory)
[ -z "$builtin" ] || steps=(load processes slabs-empty memory)
[ "$name" != leaks ] || steps+=(kmemleak)
for step in "${steps[@]}"; do
	if line=$(grep "^step $step " "$dir/verdict"); then
		result=$(cut -d' ' -f3 <<<"$line")
		check "$step" "$([ "$result" = ok ]; echo $?)" "$(cut -d' ' -f4- <<<"$line")"
	else
		check "$step" 1 "the machine did not come that far"
	fi
done
while read -r _ step result rest; do
	check "$step" "$([ "$result" = ok ]; echo $?)" "$rest"
done < <(grep -E '^step (kunit|plan) ' "$dir/verdict" || true)

check "powered off in time" "$status"
log=$dir/console
if [ "$name" = race ]; then
	awk -f "$here/kcsan.awk" "$dir/console" >"$dir/console.ours"
	log=$dir/console.ours
fi
list log-failures >"$dir/patterns"
[ -s "$dir/patterns" ] || die "log-failures is empty"
grep -E -f "$dir/patterns" "$log" >"$dir/findings" || [ $? = 1 ] ||
	die "log-failures has what is no regular expression"
if [ -s "$dir/findings" ]; then
	check "kernel log" 1 "$(wc -l <"$dir/findings") suspicious lines in $log"
	sed 's/^/    /;20q' "$dir/findings"
elif [ ! -s "$dir/console" ]; then
	check "kernel log" 1 "it is empty"
else
	check "kernel log" 0
fi

[ "$(tail -n 1 "$dir/verdict")" = 'done' ] || check "verdict" 1 "incomplete"
echo "$passed $failed $skipped" >"$dir/sums"
