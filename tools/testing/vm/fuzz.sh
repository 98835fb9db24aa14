#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# fuzz.sh run|replay|distill [NAME]
#
# Run the fuzzer of tools/testing/fuzz on a kernel of the table `kernels`.
#
# run		runs the corpus, and then new programs for FUZZ_SECONDS (300) in
#		FUZZ_PROCS (4) processes, from FUZZ_SEED (the time)
# replay	runs the corpus, or the programs of the files FUZZ_PROGRAMS, FUZZ_TIMES
#		(1) times
# distill	runs the corpus and the programs of FUZZ_PROGRAMS, and makes of them
#		a new corpus
#
# FUZZ_GUIDED=no runs a module that tells nothing about coverage: faster, but what
# is new is not noticed.
#
# Programs that are new stand in $work/fuzz/NAME/new. If anything was found, the
# programs that ran at that time are in $work/fuzz/NAME/found, to be given to
# replay.

. "$(dirname "$0")/lib.sh"

mode=${1:?} name=${2:-}
# The fast one to find something; the other one knows 32-bit programs, too.
[ -n "$name" ] || { [ "$mode" = run ] && name=um || name=fuzz; }
seconds=${FUZZ_SECONDS:-300}
procs=${FUZZ_PROCS:-4}
seed=${FUZZ_SEED:-$(date +%s)}
times=${FUZZ_TIMES:-1}
programs=${FUZZ_PROGRAMS:-}
fuzz=$top/tools/testing/fuzz
dir=$work/fuzz/$name
traits "$name"

# Two of them would write to the same files.
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -n 9 || die "the fuzzer is running already: $dir"

rm -rf "$dir"/{output,console,verdict,new,found,modules,files,memory}
mkdir -p "$dir"/{modules,files}

fuzzer=$("$here/fuzzer.sh")
# Comparisons are not asked for: to tell them would take time as well.
variant=(fuzz KCOV_INSTRUMENT=y CFLAGS_KCOV=-fsanitize-coverage=trace-pc)
[ "${FUZZ_GUIDED:-yes}" = yes ] || variant=(unguided)
cp "$("$here/module.sh" "$name" "${variant[@]}")" "$dir/modules/"
cp "$fuzzer" "$dir/files/"

: >"$dir/files/programs"
if [ "$mode" != replay ] || [ -z "$programs" ]; then
	for file in "$fuzz"/corpus/*; do
		(cat "$file"; echo) >>"$dir/files/programs"
	done
fi
for file in $programs; do
	(cat "$file"; echo) >>"$dir/files/programs"
done
"$fuzzer" check "$dir/files/programs" || die "a program cannot be read"

case $mode in
run)
	limit=$((seconds + 150))
	arguments="run $seconds $procs $seed"
	;;
replay)
	limit=${BUS1_TIMEOUT:-1200}
	arguments="replay $times"
	;;
distill)
	limit=${BUS1_TIMEOUT:-1200}
	arguments=distill
	;;
*) die "run, replay or distill?" ;;
esac
printf '%s\n' "slack $slack" "load /modules/bus1.ko" \
	"demo $limit /fuzz/bus1-fuzz $arguments /fuzz/programs" finish >"$dir/plan"
"$here/image.sh" "$name" "$dir/image" "$dir/plan" "$dir/modules=modules" "$dir/files=fuzz"

# The memory of the machine is a file: there are the programs that it was running
# when it died.
ram=$dir/memory
[ ! -w /dev/shm ] || ram=$(mktemp /dev/shm/bus1-fuzz.XXXXXX)
trap 'rm -f "$ram"' EXIT
# Without erms and fsrm the kernel clears and copies by words: emulated, each step of
# such an instruction takes the same time, whatever its width.
[[ $name != um* ]] || export BUS1_MEMORY=$ram
export BUS1_QEMU="-cpu max,-erms,-fsrm -machine memory-backend=ram -object memory-backend-file,id=ram,size=${memory}M,share=on,mem-path=$ram"
# The first complaint is the end, while the programs behind it are still there.
export BUS1_APPEND="panic_on_warn=1 ${BUS1_APPEND:-}" BUS1_KMEMLEAK=off

say "fuzzing $(cat "$("$here/kernel.sh" "$name")/release"): $arguments"
touch "$dir/output"
"$here/qemu.sh" "$name" "$dir/image" "$dir" $((limit + 150)) </dev/null 2>"$dir/qemu" |
	tee "$dir/output" | grep -aE --line-buffered '^(fuzz:|FINDING)' || true
[ -s "$dir/verdict" ] || { cat "$dir/qemu" >&2; die "the machine did not boot"; }

awk '/^@programs end/ { on = 0 } on && !/^@program/ { print } /^@program/ { on = !/end/ }' \
	"$dir/output" | tr -d '\r' >"$dir/new"
findings=$(grep -ac '^FINDING' "$dir/output" || true)
if grep -aE -f <(list log-failures) "$dir/console" >"$dir/log"; then
	findings=$((findings + 1))
	sed 's/^/    /;20q' "$dir/log"
fi
if grep -E '^step [a-z-]+ fail' "$dir/verdict"; then findings=$((findings + 1)); fi
if [ "$(tail -n 1 "$dir/verdict")" != 'done' ]; then
	findings=$((findings + 1))
	say "the machine did not come to an end"
fi

if [ "$findings" != 0 ]; then
	"$fuzzer" extract "$ram" >"$dir/found" || true
	say "kernel log: $dir/console"
	say "what the fuzzer said: $dir/output"
	say "what it ran: $dir/found; run it again by: make fuzz-replay" \
		"K=$name FUZZ_PROGRAMS=$dir/found FUZZ_TIMES=100"
fi
[ ! -s "$dir/new" ] ||
	say "new programs: $dir/new"
tail -n 2000 "$dir/output" | grep -a '^fuzz:' | tail -n 2 || true
echo "$findings findings"
[ "$findings" = 0 ]
