#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# root.sh RELEASE[-cross | -clang]
#
# Make a system of another release of Debian, with what building a module takes, to
# run its compilers and the tools of its kernels in: in_root() of lib.sh does. Print the
# directory. The archive is the one that this machine uses.
#
# With -clang it has that compiler, too. With -cross it has the compilers for arm64 and armhf. The package of the one for i386,
# which this machine has, does not suffer them beside it.

. "$(dirname "$0")/lib.sh"

select_packages() {
	packages=(gcc make binutils libc6-dev kmod pahole xz-utils sparse zlib1g)
	case $1 in
	*-cross)
		packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross
			gcc-arm-linux-gnueabihf libc6-dev-armhf-cross)
		;;
	*-clang)
		packages+=(clang-19 lld-19 llvm-19)
		;;
	*)
		packages+=(dkms openssl)
		;;
	esac
	case $1 in
	bookworm*) packages+=(libelf1 libssl3) ;;
	*) packages+=(libelf1t64 libssl3t64) ;;
	esac
}

# build RELEASE: into the current directory, as root
build() {
	archives "$1" >sources
	mmdebstrap --mode=root --format=directory --variant=minbase \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$(IFS=,; echo "${packages[*]}")" "$1" system - <sources
	mv system/* .
	rmdir system
}

name=${1:?}
if [ "$name" = build ]; then
	select_packages "$2"
	build "${2%-*}"
	exit
fi

need mmdebstrap
select_packages "$name"
archive "${name%-*}" amd64
apt_lists make
key=$({
	cat "$here/root.sh"
	archives "${name%-*}"
	for package in "${packages[@]}"; do
		apt_field "$package" Version
	done
} | sha256sum | cut -c1-12)
unset APT_CONFIG
lock "$cache/roots/$name-$key"
[ -d "$cache/roots/$name-$key" ] || say "making a Debian $name to build in, two minutes"
cached "roots/$name-$key" as_root "$here/root.sh" build "$name"
