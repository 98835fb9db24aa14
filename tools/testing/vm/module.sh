#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# module.sh NAME [VARIANT [MAKE-ARGUMENT...]]
#
# Build the module for a kernel of the table `kernels`, with all warnings on,
# in a directory of its own, and print the path of bus1.ko. Only what changed is
# built again, unless it is a variant.

. "$(dirname "$0")/lib.sh"

name=${1:?}
variant=${2:-}
shift $(($# > 1 ? 2 : 1))

kernel=$("$here/kernel.sh" "$name")
out=$work/module/$(basename "$kernel")${variant:+-$variant}
# The same kernel, and another compiler.
[[ $name == */* ]] || row "$name"
out+=${compiler:+-$compiler}
lock "$out"
[ -z "$variant" ] || rm -rf "$out"
mkdir -p "$out"

# A tree of links to the sources: objects come to lie beside the links.
find "$out" -type l ! -exec test -e {} \; -delete
(cd "$top" && find Kbuild ipc include -type f \
	\( -name '*.[ch]' -o -name Kbuild -o -name Kconfig \) ! -name '*.mod.c') |
	while read -r file; do
		[ -L "$out/$file" ] && continue
		mkdir -p "$out/$(dirname "$file")"
		ln -sf "$top/$file" "$out/$file"
	done

# Overflow of signed numbers is defined in the kernel, and no less a mistake.
flags=()
[[ $name != @(debug|leaks|um-kasan) ]] || flags=(KCFLAGS="-g -fno-wrapv -fsanitize=signed-integer-overflow \
-fsanitize-undefined-trap-on-error")
# Once with KASAN, and messages that are used again.
[ "$name" != um-kasan ] || flags[0]+=" -DBUS1_MESSAGE_KEEP=1"

say "building the module for $(cat "$kernel/release")${variant:+ ($variant)}"
"$here/kmake.sh" "$name" M="$out" -j"$jobs" W=1 "${flags[@]}" "$@" modules >"$out/make.log" 2>&1 || {
	cat "$out/make.log" >&2
	die "the module does not build for $(cat "$kernel/release")"
}
grep -E 'warning:|WARNING' "$out/make.log" >&2 || true
echo "$out/ipc/bus1/bus1.ko"
