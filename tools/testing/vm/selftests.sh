#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# selftests.sh [-a ABIS] [PROGRAM...]
#
# Build the tests of tools/testing/selftests/bus1, all or those given, as static
# programs, for `native` and `m32` or for the ABIS given; `asan` is native with sanitizers, and
# `valgrind` native under valgrind: they have only the tests of programs, not of the kernel.
# Print the directory that has them in a directory for each, and there the list of tests in
# `programs`.

. "$(dirname "$0")/lib.sh"

abis="native m32"
[ "${1:-}" != -a ] || { abis=$2; shift 2; }
tests=$top/tools/testing/selftests/bus1
out=$work/selftests
programs=("$@")
make=(make)

need make gcc libc6-dev libcap-dev linux-libc-dev
source=$("$here/source.sh")

build() {
	local abi=$1
	# The macros of the harness take gcc five times as long with -O2.
	local args=(-C "$tests" OUTPUT="$out/$abi" KSRC="$source"
		KSELFTEST_DIR="$source/tools/testing/selftests"
		USERCFLAGS=-O0 "${@:2}")
	local targets=("${programs[@]/#/$out/$abi/}")

	[ ${#targets[@]} -gt 0 ] || targets=(all)

	mkdir -p "$out/$abi"
	# Not every header stands in a rule.
	if [ -e "$out/$abi/programs" ] &&
		[ -n "$(find "$tests" "$top/include" \
			\( -name '*.h' -o -name Makefile \) -newer "$out/$abi/programs")" ]; then
		rm -rf "${out:?}/$abi"
		mkdir -p "$out/$abi"
	fi
	# shellcheck disable=SC2016 # for make
	"${make[@]}" "${args[@]}" -s --no-print-directory \
		--eval='.PHONY: programs' \
		--eval='programs: ; @echo $(notdir $(TEST_GEN_PROGS))' programs |
		tr ' ' '\n' >"$out/$abi/programs"

	"${make[@]}" "${args[@]}" -j"$jobs" "${targets[@]}" >"$out/$abi.log" 2>&1 || {
		cat "$out/$abi.log" >&2
		die "the $abi tests do not build"
	}
	# What test_tool tests.
	case " ${programs[*]} " in
	'  ' | *' test_tool '*)
		"${make[@]}" -C "$top/tools/bus1" OUTPUT="$out/$abi" LDFLAGS=-static \
			"${@:2}" >>"$out/$abi.log" 2>&1 || {
			cat "$out/$abi.log" >&2
			die "the $abi program bus1 does not build"
		}
		;;
	esac
	grep 'warning:' "$out/$abi.log" >&2 || true
}

# Programs that are not static find what they need next to them.
beside() {
	echo "-Wl,--dynamic-linker=/tests/$1/ld-linux-x86-64.so.2 -Wl,-rpath,/tests/$1"
}

# libraries ABI BUILT: copy what the program in BUILT needs.
libraries() {
	local library

	readelf -d "$out/$2/test_libbus1" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' |
		{ cat; echo ld-linux-x86-64.so.2; } | sort -u |
		while read -r library; do
			cp -L "$(gcc -print-file-name="$library")" "$out/$1/"
		done
}

[ -e "$tests/Makefile" ] || die "there are no tests"
lock "$out"
say "building the tests${*:+: $*}"
for abi in $abis; do
	make=(make)
	case $abi in
	native)
		build native
		;;
	m32)
		need gcc-multilib
		build m32 M32=1
		;;
	asan)
		need libgcc-12-dev binutils
		programs=(test_libbus1)
		build asan ASAN=1 USERLDFLAGS="$(beside asan)"
		echo test_libbus1 >"$out/asan/programs"
		libraries asan asan
		;;
	valgrind)
		# It wants to know the names in the C library's loader.
		need valgrind libc6-dbg binutils
		programs=(test_libbus1)
		build valgrind/build VALGRIND=1 USERLDFLAGS="$(beside valgrind)"
		echo test_libbus1 >"$out/valgrind/programs"
		libraries valgrind valgrind/build
		cp /usr/libexec/valgrind/{memcheck-amd64-linux,vgpreload_{core,memcheck}-amd64-linux.so,default.supp} \
			"$out/valgrind/"
		for library in "$out"/valgrind/{ld-linux-x86-64.so.2,libc.so.6}; do
			id=$(readelf -n "$library" | sed -n 's/.*Build ID: //p')
			cp "/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" "$out/valgrind/"
		done
		cp "$here/valgrind" "$out/valgrind/test_libbus1"
		cp "$here/valgrind.supp" "$out/valgrind/"
		;;
	arm64 | armhf)
		root=$("$here/root.sh" bookworm-cross)
		make=(in_root "$root" make)
		# armhf programs are laid out for pages of 4 KiB, unless told otherwise.
		case $abi in
		arm64) build arm64 CC=aarch64-linux-gnu-gcc ;;
		armhf) build armhf CC=arm-linux-gnueabihf-gcc \
			USERLDFLAGS=-Wl,-z,max-page-size=65536 ;;
		esac
		;;
	*)
		die "no ABI '$abi'"
		;;
	esac
done
echo "$out"
