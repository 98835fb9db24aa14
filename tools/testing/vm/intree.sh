#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# intree.sh [TEST...]
#
# Put bus1 into the source of a kernel by tools/in-tree, and build it there: for a
# 32-bit machine, as a module, and built in. Boot the last two, and run the tests,
# some if none is given. The last line is "N passed, N failed, N skipped".

. "$(dirname "$0")/lib.sh"

[ $# -gt 0 ] || set -- peer node handle transfer send recv poll pool order
dir=$work/intree
tree=$dir/tree
passed=0 failed=0 skipped=0

check() {
	local name=$1 log=$dir/log

	shift
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		printf '  %-46s ok\n' "in-tree $name"
	else
		failed=$((failed + 1))
		printf '  %-46s FAILED\n' "in-tree $name"
		tail -n 50 "$log" | sed 's/^/    /'
		return 1
	fi
}

# configure BUILD TARGET-ARGUMENT... < OPTIONS: tinyconfig, and the options. Only
# if that changes anything is there a new configuration, and all to build again.
configure() {
	local build=$1 lost

	shift
	mkdir -p "$build"
	cat >"$build/wanted"
	if ! cmp -s "$build/wanted" "$build/had"; then
		make -C "$tree" O="$build" "$@" -s tinyconfig || return
		cat "$build/wanted" >>"$build/.config"
	fi
	make -C "$tree" O="$build" "$@" -s olddefconfig || return
	lost=$(grep '^CONFIG_' "$build/wanted" | grep -vxF -f "$build/.config" || true)
	[ -z "$lost" ] || { echo "not in the configuration: $lost"; return 1; }
	cp "$build/wanted" "$build/had"
}

options() {
	grep -hE '^(CONFIG_|# CONFIG_.* is not set)' "$here/configs/$1.config" |
		grep -v KUNIT
}

build() {
	make -C "$tree" O="$1" -s -j"$jobs" "${@:2}" || return
	# What the compiler says of bus1 is a failure; of the kernel it is its own matter.
	! grep -E 'ipc/bus1/.*warning:' "$dir/log"
}

# As kernel.sh prints one; lane.sh takes the module from there, if there is one.
kernel_dir() {
	local kernel=$dir/in-tree-$1 build=$2

	rm -rf "$kernel"
	mkdir -p "$kernel/boot"
	make -C "$build" -s kernelrelease >"$kernel/release"
	cp "$build/arch/x86/boot/bzImage" "$kernel/boot/vmlinuz-$(cat "$kernel/release")"
	[ "$1" = y ] || cp "$build/ipc/bus1/bus1.ko" "$kernel/"
}

lane() {
	local p f s

	rm -f "$work/lane/in-tree-$1/sums"
	"$here/lane.sh" "$dir/in-tree-$1" "${@:2}" || true
	if ! read -r p f s <"$work/lane/in-tree-$1/sums"; then
		p=0 f=1 s=0
		say "the machine with bus1=$1 did not finish"
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

documented() {
	grep -A 12 '^BUS1 MESSAGE BUS$' "$tree/MAINTAINERS" | grep -F 'ipc/bus1/' &&
		grep -F 'linux/bus1.h' "$tree/Documentation/userspace-api/ioctl/ioctl-number.rst"
}

header_is_installed() {
	make -C "$tree" O="$dir/build" -s INSTALL_HDR_PATH="$dir/headers" headers_install &&
		gcc -xc -fsyntax-only -Wall -Werror -isystem "$dir/headers/include" \
			- <<<'#include <linux/bus1.h>'
}

# Programs find the headers of "make headers" where that puts them.
programs() {
	local programs=$dir/programs

	make -C "$tree" O="$dir/build" -s INSTALL_HDR_PATH="$tree/usr" headers_install &&
		make -C "$tree/tools/lib/bus1" -s OUTPUT="$programs/lib" check &&
		make -C "$tree/samples/bus1" -s OUTPUT="$programs/samples" &&
		make -C "$tree/Documentation/bus1/examples" -s OUTPUT="$programs/examples"
}

both() {
	local name=$1 set=$2 build=$dir/build

	check "$name: configuration" configure "$build" \
		< <(options base; options in-tree; echo "CONFIG_BUS1=$set") || return
	say "building a kernel with CONFIG_BUS1=$set"
	check "$name: builds" build "$build" bzImage modules || return
	[ "$set" = m ] || check "$name: it is in vmlinux" grep -q ' bus1_init$' "$build/System.map"
	kernel_dir "$set" "$build"
	shift 2
	lane "$set" "$@"
}

i386() {
	local build=$dir/build-i386

	check "32 bit: configuration" configure "$build" ARCH=i386 < <(options i386) || return
	say "building a 32-bit kernel"
	check "32 bit: the module without a warning" build "$build" ARCH=i386 W=1 ipc/bus1/ ||
		return
	# To link it finds what 32-bit kernels have not, as a division of 64 bits.
	check "32 bit: links into vmlinux" build "$build" ARCH=i386 vmlinux
}

need make gcc gcc-multilib binutils libc6-dev bc bison flex libelf-dev libssl-dev kmod \
	cpio xz-utils rsync
lock "$dir"
mkdir -p "$dir"
source=$("$here/kernel.sh" -s debug)
# Links cost nothing, where the cache is one file system.
if [ "$(cat "$dir/of" 2>/dev/null)" != "$source" ]; then
	rm -rf "$dir"
	mkdir -p "$dir"
	cp -al "$source" "$tree" 2>/dev/null || { rm -rf "$tree"; cp -a "$source" "$tree"; }
	echo "$source" >"$dir/of"
fi

check "tools/in-tree" "$top/tools/in-tree" "$tree"
check "MAINTAINERS, list of ioctls" documented
i386 || true
both "module" m "$@" || true
check "headers_install" header_is_installed || true
check "library, samples, examples" programs || true
both "built in" y "$@" || true

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
