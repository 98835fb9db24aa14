#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dkms.sh NAME
#
# Let the DKMS of another release of Debian add, build and install the module for a
# kernel of the table `kernels` that is of that release. Nothing of it stays.

. "$(dirname "$0")/lib.sh"

name=${1:?}
row "$name"
[ -n "$suite" ] || die "for the kernels of this release there is make check-install"
kernel=$("$here/kernel.sh" "$name")
root=$("$here/root.sh" "${suite%-backports}")
release=$(cat "$kernel/release")
version=$("$top/tools/version")
log=$work/dkms.log

say "letting DKMS build the module for $release"
# shellcheck disable=SC2016 # for that shell
as_root unshare -m sh -euc '
	root=$1 top=$2 kernel=$3 release=$4 version=$5
	for dir in usr/src usr/lib/modules var/lib/dkms; do
		mkdir -p "$root/$dir"
		mount -t tmpfs tmpfs "$root/$dir"
	done
	mkdir -p "$root$kernel" "$root/usr/src/bus1-$version" "$root/usr/lib/modules/$release"
	mount --bind "$kernel" "$root$kernel"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	cp -RL "$top/dkms.conf" "$top/Kbuild" "$top/ipc" "$top/include" "$root/usr/src/bus1-$version/"
	ln -s "$kernel/usr/src/linux-headers-$release" "$root/usr/lib/modules/$release/build"
	cp "$kernel/build/.config" "$root/usr/lib/modules/$release/config"
	exec chroot "$root" env -i PATH="$PATH" LC_ALL=C HOME=/ sh -euc "
		dkms --version
		dkms add -m bus1 -v $version
		dkms build -m bus1 -v $version -k $release
		dkms install -m bus1 -v $version -k $release
		dkms status -m bus1
		modinfo /usr/lib/modules/$release/updates/dkms/bus1.ko*"
' sh "$root" "$top" "$kernel" "$release" "$version" >"$log" 2>&1 || {
	cat "$log" >&2
	die "DKMS does not build it"
}
grep -E '^dkms' "$log" >&2
grep -F "bus1/$version, $release, " "$log" | grep ': installed$' ||
	die "it is not installed, see $log"
sed -n 's/^vermagic: *//p' "$log" | grep -F "$release " >/dev/null || die "it is for another kernel, see $log"
