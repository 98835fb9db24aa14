#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# image.sh NAME IMAGE PLAN [DIRECTORY=WHERE...]
#
# Pack an initramfs for a kernel of the table `kernels`: busybox, init.c, its
# plan, and what stands in the directories. Modules of the kernel that tests can
# make use of lie in /modules.

. "$(dirname "$0")/lib.sh"

name=${1:?} image=${2:?} plan=${3:?}
shift 3
modules=(fuse binder_linux)

need busybox-static cpio gcc libc6-dev kmod xz-utils
traits "$name"
kernel=$("$here/kernel.sh" "$name")
release=$(cat "$kernel/release")

# Of another architecture there is nothing installed here.
unpack_busybox() {
	apt_download busybox-static
	dpkg-deb -x ./*.deb .
	rm ./*.deb
}

cc=(gcc) busybox=/bin/busybox
if [ "$arch" != amd64 ]; then
	system=$("$here/root.sh" bookworm-cross)
	cc=(in_root "$system" aarch64-linux-gnu-gcc)
	archive "" "$arch"
	apt_lists busybox-static
	version=$(apt_field busybox-static Version)
	busybox=$(cached "busybox/${version//:/%}-$arch" unpack_busybox)/bin/busybox
fi

init=$work/init-$arch-$(sha256sum <"$here/init.c" | cut -c1-12)
[ -x "$init" ] || {
	"${cc[@]}" -static -O2 -Wall -D_GNU_SOURCE -Wno-unused-result \
		-o "$init.$$" "$here/init.c" >&2
	mv "$init.$$" "$init"
}

root=$(mktemp -d "$work/root.XXXXXX")
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,tmp,etc,modules}
cp "$busybox" "$root/bin/busybox"
# It is the same program, in another language.
for applet in $(/bin/busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$init" "$root/init"
cp "$plan" "$root/plan"
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

# In the order in which they have to be loaded.
for module in "${modules[@]}"; do
	# It may be built in.
	{ /sbin/modprobe -S "$release" -d "$kernel" --show-depends "$module" || true; } \
		2>/dev/null | sed -n 's/^insmod //p' | xargs
done | tr ' ' '\n' | awk 'NF && !seen[$0]++' |
	while read -r file; do
		to=$root/modules/$(basename "${file%.xz}")
		case $file in
		*.xz) xz -dc "$file" >"$to" ;;
		*) cp "$file" "$to" ;;
		esac
		printf 'try /modules/%s\n' "${to##*/}"
	done >"$root/plan.modules"
cat "$root/plan.modules" "$plan" >"$root/plan"
rm "$root/plan.modules"

for pair; do
	mkdir -p "$root/${pair#*=}"
	cp -RL "${pair%%=*}/." "$root/${pair#*=}/"
done

(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$image.$$"
mv "$image.$$" "$image"
