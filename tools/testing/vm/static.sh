#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# static.sh [-m] [NAME...]
#
# The checks that need no machine, for kernels of the table `kernels`; with -m, only
# those of the modules. Print what each finds, and write the sums (passed, failed,
# skipped) to $work/static/sums.

. "$(dirname "$0")/lib.sh"

modules_only=
[ "${1:-}" != -m ] || { modules_only=1; shift; }
[ $# -gt 0 ] || set -- 6.1 6.12 7.3
dir=$work/static
rm -rf "$dir"
mkdir -p "$dir/tree"

passed=0 failed=0

# case NAME COMMAND...: it must succeed, and print nothing.
check() {
	local name=$1 log=$dir/log

	shift
	if "$@" >"$log" 2>&1 && [ ! -s "$log" ]; then
		passed=$((passed + 1))
		printf '  %-46s ok\n' "static $name"
	else
		failed=$((failed + 1))
		printf '  %-46s FAILED\n' "static $name"
		sed 's/^/    /' "$log"
	fi
}

# Checkers print paths, and some leave files behind: run them in a tree of links.
ln -s "$top"/{.checkpatch.conf,[!.]*} "$dir/tree/"
cd "$dir/tree"

sources() {
	find -L "$@" -type f -name '*.[ch]' ! -name '*.mod.c' 2>/dev/null | sort
}

module_builds() {
	"$here/module.sh" "$1" static >"$dir/ko" 2>"$dir/build" ||
		{ grep -v '^\[' "$dir/build"; return 1; }
	grep -E 'warning:|WARNING' "$dir/build" || true
}

sparse_is_quiet() {
	local out

	out=$(dirname "$(dirname "$(dirname "$(cat "$dir/ko")")")")
	if "$here/kmake.sh" "$1" M="$out" C=2 CHECK='sparse -Wsparse-error' \
		-k modules >"$dir/sparse" 2>&1; then
		grep -E 'warning:' "$dir/sparse" || true
	else
		grep -E '(error|warning):' "$dir/sparse" | sed "s|^$out/||" ||
			cat "$dir/sparse"
		return 1
	fi
}

exports_are_mainline() {
	nm -u "$(cat "$dir/ko")" | awk '{ print $2 }' >"$dir/symbols"
	grep -qx misc_register "$dir/symbols" || echo "cannot read its symbols"
	grep -xF -f <(list debian-exports) "$dir/symbols" || true
}

kernel_doc_is_complete() {
	# shellcheck disable=SC2046 # a list of files
	"$source/scripts/kernel-doc" -none $(sources ipc include tools/lib/bus1)
}

# What it says stays but for the exceptions: the file and the type of each.
checkpatch_is_quiet() {
	# shellcheck disable=SC2046 # a list of files
	"$source/scripts/checkpatch.pl" --quiet --terse --no-summary --show-types \
		-f $(sources "$@") |
		grep -vE -f <(list checkpatch-exceptions |
			awk '{ print "^" $1 ":[0-9]+: [A-Z]+:" $2 ":" }') || true
}

versions_are_in_compat() {
	sources ipc | grep -v '/compat\.h$' |
		xargs grep -nE 'LINUX_VERSION_CODE|KERNEL_VERSION|linux/version\.h' || true
}

benchmark_builds() {
	make -s -C tools/testing/bench OUTPUT="$dir/bench" CFLAGS='-O2 -Werror'
}

library_builds() {
	local compiler=$1 bits=$2 out=$dir/libbus1-$1-$2

	make -s -C tools/lib/bus1 OUTPUT="$out" CC="$compiler" \
		CFLAGS="-O2 -g -Werror -m$bits" all check
}

library_header_stands_alone() {
	local language=$1

	echo '#include <bus1/bus1.h>' |
		gcc -x "${language%-*}" -std="${language#*-}" -fsyntax-only -Wall -Wextra \
			-pedantic -Werror -I tools/lib -
}

# It installs what it takes away again, and a program is built with what it says.
library_installs() {
	local to=$dir/installed
	local make=(make -s -C tools/lib/bus1 OUTPUT="$dir/libbus1-gcc-64" DESTDIR="$to"
		PREFIX=/opt/bus1)

	"${make[@]}" install
	# shellcheck disable=SC2046 # a list of flags
	echo 'int main(void) { return !*bus1_version(); }' |
		gcc -x c -include bus1/bus1.h -o "$dir/program" - $(
			PKG_CONFIG_PATH=$to/opt/bus1/lib/pkgconfig pkg-config \
				--define-variable=prefix="$to/opt/bus1" \
				--define-variable=libdir="$to/opt/bus1/lib" \
				--define-variable=includedir="$to/opt/bus1/include" \
				--cflags --libs libbus1)
	LD_LIBRARY_PATH=$to/opt/bus1/lib "$dir/program"
	"${make[@]}" uninstall
	find "$to" ! -type d
}

header_stands_alone() {
	local language=$1 bits=$2

	echo '#include <linux/bus1.h>' |
		gcc -x "$language" "-m$bits" -fsyntax-only -Wall -Wextra -Werror \
			-I include/uapi -
}

scripts_are_sound() {
	find -L . -name '*.sh' -type f -print0 | sort -z |
		xargs -0 shellcheck -x -P "$here" "$top/.ci/run" "$top/tools/lib/bus1/check-symbols" "$top/tools/version" "$top/tools/in-tree" \
		"$top"/debian/*.p[or]*
}

files_name_their_license() {
	# The kernel's test runner evaluates each line of `settings`.
	(cd "$top" && find . -name .git -prune -o -type f -size +0 -print) |
		grep -vE '^\./(LICENSE|tools/lib/bus1/COPYING|build/.*|.*/settings|debian/(changelog|copyright|source/format)|.*\.(o|ko|mod|mod\.c|cmd|order|symvers))$' |
		while read -r file; do
			head -n 8 "$top/$file" | grep -q SPDX-License-Identifier ||
				echo "$file"
		done
}

manual_is_well_formed() {
	local page

	for page in Documentation/bus1/*.rst; do
		case $page in
		*.7.rst) rst2man "$page" >/dev/null ;;
		# A manual page has no pictures.
		*) rst2pseudoxml "$page" >/dev/null ;;
		esac
	done
}

manual_agrees_with_header() {
	tools/testing/check-docs "$top" >"$dir/docs" || {
		cat "$dir/docs"
		return 1
	}
}

versions_agree() {
	tools/version check
}

# Each field is there, and each parameter is described; the example of the Debian
# package for modprobe.d names all of them.
modinfo_is_complete() {
	local ko field parameters

	ko=$(cat "$dir/ko")
	for field in description author license version; do
		[ -n "$(modinfo -F "$field" "$ko")" ] || echo "no $field"
	done
	[ "$(modinfo -F version "$ko")" = "$(tools/version)" ] || echo "another version"
	modinfo -F parm "$ko" | grep -vE '^[a-z_]+:.+ \([a-z]+\)$' |
		sed 's/$/: not described/' || true
	parameters=$(modinfo -F parm "$ko" | sed 's/:.*//; /^kunit_/d' | sort)
	[ -n "$parameters" ] || echo "no parameters"
	diff <(sed -n 's/^options bus1 \(.*\)=.*/\1/p' debian/modprobe.d/bus1.conf | sort) \
		- <<<"$parameters" | grep '^[<>]' || true
}

readme_shows_matrix() {
	"$here/matrix.sh" check
}

barriers_are_explained() {
	tools/testing/check-barriers "$top" >"$dir/barriers" || {
		cat "$dir/barriers"
		return 1
	}
}

# Who changes the code changes what breaks it on purpose, too.
mutants_apply() {
	"$here/mutants.sh" -n 2>&1
}

need sparse binutils perl patch g++ shellcheck python3-docutils linux-libc-dev gcc-multilib \
	clang pkg-config
source=$("$here/source.sh")

for name; do
	check "$name: builds without a warning" module_builds "$name"
	if [ -s "$dir/ko" ]; then
		check "$name: sparse" sparse_is_quiet "$name"
		check "$name: uses only mainline's exports" exports_are_mainline
		check "$name: modinfo is complete" modinfo_is_complete
	fi
done
if [ -z "$modules_only" ]; then
	say "checking the sources"
	check "kernel-doc" kernel_doc_is_complete
	check "checkpatch of the module" checkpatch_is_quiet ipc include
	check "checkpatch of the library" checkpatch_is_quiet tools/lib
	check "kernel versions only in compat.h" versions_are_in_compat
	for bits in 64 32; do
		check "header alone, C, $bits bit" header_stands_alone c $bits
		check "header alone, C++, $bits bit" header_stands_alone c++ $bits
	done
	for compiler in gcc clang; do
		for bits in 64 32; do
			check "libbus1, $compiler, $bits bit" library_builds $compiler $bits
		done
	done
	for language in c-c11 c-c17 c++-c++98 c++-c++20; do
		check "libbus1's header, ${language#*-}" library_header_stands_alone $language
	done
	check "libbus1 installs" library_installs
	check "benchmark builds without a warning" benchmark_builds
	check "one version" versions_agree
	check "shellcheck" scripts_are_sound
	check "SPDX" files_name_their_license
	check "manual" manual_is_well_formed
	check "manual agrees with the header" manual_agrees_with_header
	check "barriers are explained, and tested" barriers_are_explained
	check "mutants apply" mutants_apply
	check "README.md shows the matrix" readme_shows_matrix
fi

echo "$passed $failed 0" >"$dir/sums"
say "static checks: $passed passed, $failed failed"
[ "$failed" = 0 ]
