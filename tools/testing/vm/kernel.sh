#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kernel.sh NAME
#
# Unpack a kernel of the table `kernels`, its modules and its headers, without
# installing them. Print the directory, in which there are
#	release			what uname -r will say
#	boot/vmlinuz-*, lib/modules/*
#	build			the directory to build modules in

. "$(dirname "$0")/lib.sh"

unpack() {
	local release=$1 version=$2 headers=linux-headers-$1 packages deb dir

	mapfile -t packages < <(apt_field "$headers=$version" Depends |
		grep -oE 'linux-(headers-[^ ]*-common(-rt)?|kbuild-[^ ,]*)')
	packages+=("$headers" "linux-image-$release")
	apt_download "${packages[@]/%/=$version}"
	for deb in *.deb; do
		dpkg-deb -x "$deb" .
		rm "$deb"
	done

	# Make the headers independent of the place they are unpacked to.
	for dir in usr/src/linux-headers-*; do
		# shellcheck disable=SC2016 # for make
		sed -i 's|^include /usr/src/|include $(dir $(lastword $(MAKEFILE_LIST)))../|' \
			"$dir/Makefile"
	done

	[ -d lib/modules ] || ln -s usr/lib lib
	depmod -b . "$release"
	ln -s "usr/src/$headers" build
	echo "$release" >release
}

name=${1:?}
read -r series package < <(
	awk -v name="$name" '$1 == name { print $2, $3 }' "$here/kernels"
) || die "no kernel '$name', these are known:" \
	"$(awk '/^[^#]/ { print $1 }' "$here/kernels" | xargs)"

apt_lists "$package"
version=$(apt_field "$package" Version)
release=$(apt_field "$package" Depends |
	sed -n 's/.*linux-image-\([^ ,]*\).*/\1/p')
case $release in
"$series".*) ;;
*) die "apt offers '$release' as $package: kernel $name wants the package" \
	"sources of Debian 12, bookworm-security included" ;;
esac

dir=$cache/kernel/${release}_${version//:/%}
[ -d "$dir" ] || say "fetching kernel $release ($version) and its headers"
cached "kernel/${release}_${version//:/%}" unpack "$release" "$version"
