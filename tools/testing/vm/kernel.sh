#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kernel.sh [-s] NAME
#
# With -s, print the directory that has the source of a kernel that is built here.
# A NAME with a slash is such a directory as is printed else.
#
# Unpack a kernel of the table `kernels`, its modules and its headers, without
# installing them, or build it. Print the directory, in which there are
#	release			what uname -r will say
#	boot/vmlinuz-*, lib/modules/*
#	build			the directory to build modules in

. "$(dirname "$0")/lib.sh"

unpack() {
	local release=$1 version=$2 headers=linux-headers-$1 packages tools kernels deb dir

	need dpkg kmod
	# The tools may be newer than the kernel: they are built from another upload
	# where the archive has not signed all of the last one yet. From 7.1 on the image
	# is in two packages of its own.
	mapfile -t packages < <(
		{
			apt_field "$headers=$version" Depends |
				grep -oE 'linux-(headers-[^ ]*-common(-rt)?|kbuild-[^ ,]*)( \(= [^)]*\))?'
			apt_field "linux-image-$release=$version" Depends |
				grep -oE 'linux-(base|binary|modules)-[0-9][^ ]*( \(= [^)]*\))?' || true
		} | sed 's/ (= \(.*\))/=\1/')
	packages+=("$headers=$version" "linux-image-$release=$version")
	tools=() kernels=()
	for deb in "${packages[@]}"; do
		case $deb in
		linux-kbuild-*) tools+=("$deb") ;;
		*) kernels+=("$deb") ;;
		esac
	done
	apt_download "${kernels[@]}"
	# The tools are run here.
	archive "$suite" amd64
	apt_lists "${tools[0]%=*}"
	apt_download "${tools[@]}"
	for deb in *.deb; do
		dpkg-deb -x "$deb" .
		rm "$deb"
	done

	# Make the headers independent of the place they are unpacked to.
	for dir in usr/src/linux-headers-*; do
		# shellcheck disable=SC2016 # for make
		sed -i 's|^include /usr/src/|include $(dir $(lastword $(MAKEFILE_LIST)))../|
			s|^KBUILD_OUTPUT=.*|KBUILD_OUTPUT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))|' \
			"$dir/Makefile"
	done

	[ -d lib/modules ] || ln -s usr/lib lib
	depmod -b . "$release"
	if [ ! -e "boot/vmlinuz-$release" ]; then
		mkdir -p boot
		ln "lib/modules/$release/vmlinuz" "boot/vmlinuz-$release"
	fi
	ln -s "usr/src/$headers" build
	echo "$release" >release
}

# The whole source of the kernel, once for all that are built of it.
unpack_source() {
	apt_download "$package=$version"
	dpkg-deb --fsys-tarfile ./*.deb | tar -xO "./usr/src/$package.tar.xz" |
		tar -xJ --strip-components=1
	rm ./*.deb
}

# What is on top of tinyconfig.
options() {
	local config

	for config in $configs; do
		grep -E '^(CONFIG_|# CONFIG_.* is not set)' "$here/configs/$config.config"
	done
}

build() {
	local source=$1 lost

	need make gcc gcc-12 binutils libc6-dev bc bison flex libelf-dev libssl-dev \
		kmod cpio xz-utils
	mkdir build
	make -C "$source" O="$PWD/build" -s tinyconfig || return
	options >>build/.config
	make -C build -s olddefconfig >/dev/null 2>&1 || return

	# What was asked for may depend on something that is missing.
	lost=$(options | while read -r line; do
		case $line in
		CONFIG_*) grep -qxF "$line" build/.config || echo "$line" ;;
		*) ! grep -q "^${line:2:-11}=" build/.config || echo "$line" ;;
		esac
	done)
	[ -z "$lost" ] || { echo "not in the configuration: $lost"; return 1; }

	make -C build -s -j"$jobs" bzImage modules >build.log 2>&1 || {
		tail -n 50 build.log
		return 1
	}
	make -C build -s INSTALL_MOD_PATH="$PWD" modules_install || return
	mkdir boot
	make -C build -s kernelrelease >release
	mv build/arch/x86/boot/bzImage "boot/vmlinuz-$(cat release)"
	# To build modules takes the headers and the tools, and no object.
	rm -f build/vmlinux* build/.vmlinux* build/.tmp_vmlinux*
	find build \( -name '*.o' -o -name '*.a' -o -name '*.cmd' -o -name '*.bin' \) \
		-type f -delete
}

# The same for a kernel that is a program of this machine.
build_um() {
	local source=$1 line lost=

	need make gcc gcc-12 binutils libc6-dev bc bison flex libelf-dev libssl-dev kmod
	mkdir build
	make -C "$source" O="$PWD/build" ARCH=um -s tinyconfig || return
	options >>build/.config
	make -C build ARCH=um -s olddefconfig >/dev/null 2>&1 || return
	while read -r line; do
		case $line in
		CONFIG_*) grep -qxF "$line" build/.config || lost+=" $line" ;;
		*) ! grep -q "^${line:2:-11}=" build/.config || lost+=" $line" ;;
		esac
	done < <(options)
	[ -z "$lost" ] || { echo "not in the configuration:$lost"; return 1; }

	make -C build ARCH=um -s -j"$jobs" linux modules >build.log 2>&1 || {
		tail -n 50 build.log
		return 1
	}
	make -C build ARCH=um -s INSTALL_MOD_PATH="$PWD" modules_install || return
	mkdir boot
	make -C build ARCH=um -s kernelrelease >release
	strip -o "boot/vmlinuz-$(cat release)" build/linux
	rm -f build/linux build/vmlinux* build/.vmlinux* build/.tmp_vmlinux*
	find build \( -name '*.o' -o -name '*.a' -o -name '*.cmd' -o -name '*.bin' \) \
		-type f -delete
}

source_only=
[ "${1:-}" != -s ] || { source_only=1; shift; }
name=${1:?}
case $name in
*/*)
	echo "$name"
	exit
	;;
esac
row "$name"
archive "$suite" "$deb_arch"
apt_lists "$package"
version=$(apt_field "$package" Version)
if [ -n "$configs" ]; then
	[ -n "$version" ] || die "apt knows no $package: bookworm-security has it"
	if [ -n "$source_only" ]; then
		cached "kernel-source/${version//:/%}" unpack_source
		exit
	fi
	# Its version is part of the key.
	need gcc-12
	build=build
	[[ $name != um* ]] || build=build_um
	toolchain "$name"
	key=$( (options; declare -f $build; gcc-12 --version; echo "$version"
		[ -z "${LLVM:-}" ] || "clang$LLVM" --version) |
		sha256sum | cut -c1-12)
	dir=$cache/kernel/built-$key
	lock "$dir"
	if [ ! -d "$dir" ]; then
		say "unpacking $package $version"
		source=$(cached "kernel-source/${version//:/%}" unpack_source)
		say "building the kernel '$name' ($configs)"
	fi
	cached "kernel/built-$key" $build "${source:-}"
	exit
fi
release=$(apt_field "$package" Depends |
	sed -n 's/.*linux-image-\([0-9][^ ,]*\).*/\1/p')
case $release in
"$series".*) ;;
*) die "apt offers '$release' as $package: kernel $name wants the package" \
	"sources of Debian 12, bookworm-security included" ;;
esac

dir=$cache/kernel/${release}_${version//:/%}
[ -d "$dir" ] || say "fetching kernel $release ($version) and its headers"
cached "kernel/${release}_${version//:/%}" unpack "$release" "$version"
