#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run.sh bench KERNEL [ROW...]
# run.sh profile KERNEL [ROW...]
# run.sh shared KERNEL [ROW...]
# run.sh docs
#
# Measure on a kernel of vm/kernels all rows, or those that match a pattern (see
# rows.c). `profile' prints which functions the instructions of some rows are in, and
# `shared' what memory two CPUs both write that do the same without having to do with each
# other.
# `docs' takes over the last results of the others into the documentation, if
# they were told no rows.
#
# BASE=REVISION	measure the module of another revision, too, in the same machine
# ONLY=icount or time	only one way of counting
# RUNS=N		machines that count instructions: the second shows if it repeats (2)
# ROUNDS=N		rounds of time (5)
# TRANSPORT=NAMES	profile these, or look for what they share (bus1)
# SAMPLES=N		operations of each row
#
# The machine that counts instructions has one CPU, executes one instruction a
# nanosecond, and has a time stamp counter that counts these. `rep movs' counts one
# for each 8 bytes: the CPU says that it is not good at single bytes, or else the
# kernel would copy these one by one. For the same reason memory is not cleared when
# it is allocated: that would hide what is to be seen.

. "$(dirname "${BASH_SOURCE[0]}")/../vm/lib.sh"

bench=$top/tools/testing/bench
out=$work/bench

# Nothing of the debugging that the tests have is in here.
append="console=ttyS0 loglevel=4 printk.devkmsg=on panic=-1 oops=panic nokaslr \
mitigations=off init_on_alloc=0 tsc=reliable"
cpu=max,-erms,-fsrm

# boot DIRECTORY NAME SECONDS QEMU-ARGUMENT...
boot() {
	local dir=$1 name=$2 seconds=$3

	shift 3
	rm -f "$dir/$name".{console,verdict,output}
	say "$name: booting $release"
	timeout --foreground -k 5 "$seconds" qemu-system-x86_64 -machine q35 -cpu "$cpu" \
		-m 2048 -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$kernel/boot/vmlinuz-$release" -initrd "$dir/$name.image" \
		-append "$append" -serial "file:$dir/$name.console" -serial stdio \
		-serial "file:$dir/$name.verdict" "$@" </dev/null |
		tr -d '\r' >"$dir/$name.output" || die "$name: see $dir/$name.console"
	grep -qsx 'step load ok' "$dir/$name.verdict" ||
		die "the module was not loaded, see $dir/$name.console"
	if grep -qE '^step load fail|^demo .* (signal|timeout|exit [^0])' "$dir/$name.verdict" ||
		! grep -qsx 'done' "$dir/$name.verdict" ||
		! grep -qsx 'bench: done' "$dir/$name.output"; then
		die "$name: it did not come to its end, see $dir/$name.output and .console"
	fi
}

counting=(-accel tcg -smp 1 -icount "shift=0,sleep=off" -rtc "base=2024-01-01,clock=vm")
timing=(-accel "tcg,thread=multi" -smp 2)

# plan MODE ARGUMENT...
plan() {
	local mode=$1

	shift
	echo "slack 1000000"
	if [ -n "${BASE:-}" ]; then
		for ((i = 0; i < rounds; ++i)); do
			echo "load /modules/base/bus1.ko"
			echo "demo 1000000 /bench/bench -m $mode -x bus1 -l base $*"
			echo unload
			echo "load /modules/bus1.ko"
			echo "demo 1000000 /bench/bench -m $mode $*"
			[ $((i + 1)) = "$rounds" ] || echo unload
		done
	else
		echo "load /modules/bus1.ko"
		[[ $mode != @(profile|shared) ]] || echo "demo 1000000 /bin/sh /bench/symbols.sh"
		echo "demo 1000000 /bench/bench -m $mode -r $rounds $*"
	fi
	echo finish
}

# image NAME MODE ARGUMENT...
image() {
	local name=$1

	shift
	plan "$@" >"$dir/$name.plan"
	"$here/image.sh" "$K" "$dir/$name.image" "$dir/$name.plan" "$dir/bench=bench" \
		"$dir/modules=modules"
}

# The module of another revision, with nothing of this tree.
build_base() {
	local revision tree

	revision=$(git -C "$top" rev-parse --short=12 --verify "$BASE^{commit}") ||
		die "there is no revision '$BASE'"
	tree=$out/base/$revision-$release
	if [ ! -e "$tree/ipc/bus1/bus1.ko" ]; then
		say "building the module of $BASE"
		rm -rf "$tree"
		mkdir -p "$tree"
		git -C "$top" archive "$revision" Kbuild ipc include | tar -x -C "$tree"
		make -C "$kernel/build" M="$tree" -j"$jobs" modules >"$tree/make.log" 2>&1 || {
			cat "$tree/make.log" >&2
			die "the module of $BASE does not build for $release"
		}
	fi
	mkdir -p "$dir/modules/base"
	cp "$tree/ipc/bus1/bus1.ko" "$dir/modules/base/"
}

prepare() {
	need make gcc binutils libc6-dev linux-libc-dev qemu-system-x86 python3
	kernel=$("$here/kernel.sh" "$K")
	release=$(cat "$kernel/release")
	dir=$out/$1
	lock "$dir"
	rm -rf "$dir"
	mkdir -p "$dir"/{bench,modules}
	cp "$("$here/module.sh" "$K")" "$dir/modules/"
	[ -z "${BASE:-}" ] || build_base
	make -C "$bench" OUTPUT="$dir/bench" >"$dir/make.log" 2>&1 || {
		cat "$dir/make.log" >&2
		die "the benchmark does not build"
	}
	grep 'warning:' "$dir/make.log" >&2 || true
	cp "$bench/symbols.sh" "$dir/bench/"
}

plot() {
	(cd "$dir" && gnuplot "$1.gp" &&
		sed -i '1a <!-- SPDX-License-Identifier: GPL-2.0-only -->' "$1.svg") ||
		die "gnuplot failed on $dir/$1.gp"
}

run_bench() {
	local name complete=(all "$@")

	need gnuplot-nox
	[ -z "${SAMPLES:-}" ] || set -- -n "$SAMPLES" "$@"
	prepare "${complete[${#complete[@]} > 1 ? 1 : 0]//[^a-z0-9]/_}"
	if [ "${ONLY:-icount}" = icount ]; then
		rounds=1
		image icount icount "$@"
		for ((run = 1; run <= ${RUNS:-2}; ++run)); do
			ln -sf icount.image "$dir/icount-$run.image"
			boot "$dir" "icount-$run" 7200 "${counting[@]}"
		done
	fi
	if [ "${ONLY:-time}" = time ]; then
		rounds=${ROUNDS:-5}
		image time time "$@"
		boot "$dir" time 7200 "${timing[@]}"
	fi
	"$bench/report.py" "$dir" "$release"
	for name in size multicast growth; do
		[ ! -s "$dir/$name.gp" ] || plot "$name"
	done
	say "these and the plots are in $dir"
}

# By the plugin of that name.
run_plugin() {
	local plugin=$1 transport args=() n=0 line counts=() name=$1 machine=("${counting[@]}")

	shift
	[ $# = 0 ] || name=$plugin-${1//[^a-z0-9]/_}
	for transport in ${TRANSPORT:-bus1}; do
		args+=(-x "$transport")
	done
	[ -z "${SAMPLES:-}" ] || args+=(-n "$SAMPLES")
	[ "$plugin" = profile ] || machine=("${timing[@]}")
	if [ $# = 0 ] && [ "$plugin" = profile ]; then
		set -- oneway-64 oneway-4k oneway-64k rtt-64
	elif [ $# = 0 ]; then
		set -- oneway-64 open
	fi
	BASE='' prepare "$name"
	rounds=1
	image "$plugin" "$plugin" "${args[@]}" "$@"
	boot "$dir" "$plugin" 7200 "${machine[@]}" \
		-plugin "$dir/bench/$plugin.so,out=$dir/counts"
	sed -n '/^@symbols/,/^@end/{/^@/!p}' "$dir/$plugin.output" | base64 -d |
		gunzip >"$dir/symbols"
	grep -P '^E\t' "$dir/$plugin.output" >&2 || true
	while IFS= read -r line; do
		n=$((n + 1))
		"$bench/profile.py" "--$plugin" "$dir/symbols" "$dir/counts.$n" "$line" \
			"$dir/modules/bus1.ko" |
			tee "$dir/$(cut -f2,3 <<<"$line" | tr '\t' '-').txt"
		counts+=("$dir/counts.$n")
	done < <(grep -P '^R\t' "$dir/$plugin.output")
	[ "$n" -gt 0 ] || die "there is no such row"
	if [ "$plugin" = profile ]; then
		"$bench/profile.py" --tables "${counts[@]}" >"$dir/tables.rst"
	else
		{
			printf '::\n\n'
			cat "$dir"/*-*.txt | sed 's/^./    &/'
		} >"$dir/tables.rst"
	fi
	say "these are in $dir"
}

take_over() {
	local name dir=$out/all parts=()

	[ ! -s "$dir/table.rst" ] || parts+=(results "$dir/table.rst")
	[ ! -s "$dir/times.rst" ] || parts+=(times "$dir/times.rst")
	for name in profile shared; do
		[ ! -s "$out/$name/tables.rst" ] || parts+=("$name" "$out/$name/tables.rst")
	done
	[ ${#parts[@]} != 0 ] || die "first: make bench, bench-profile or bench-shared"
	"$bench/report.py" --docs "$top/Documentation/bus1/performance.rst" "${parts[@]}"
	if [ -s "$dir/table.rst" ]; then
		for name in size multicast growth; do
			cp "$dir/$name.svg" "$top/Documentation/bus1/performance-$name.svg"
		done
		cp "$dir/summary.csv" "$top/Documentation/bus1/performance.csv"
	fi
	# Other pages have some of these numbers.
	"$top/tools/testing/check-docs" --numbers "$top" >&2
}

main() {
	local what=${1:?}

	K=${2:-}
	K=${K:-6.1-generic}
	shift $(($# > 1 ? 2 : 1))
	case $what in
	bench) run_bench "$@" ;;
	profile | shared) run_plugin "$what" "$@" ;;
	docs) take_over ;;
	*) die "what is '$what'?" ;;
	esac
}

main "$@"; exit
