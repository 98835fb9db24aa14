#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# image.sh
#
# Build the disk of a whole Debian 12 system with its generic kernel, one that
# boots through shim and GRUB, also with Secure Boot. In its apt cache is all that
# `packages` will ask for, so it needs no network. Print the directory that `disk`
# is in. The archive is the one that this machine uses.

. "$(dirname "$0")/../vm/lib.sh"

self=$top/tools/testing/install
release=bookworm

# What is installed, besides what every Debian has ...
installed=(systemd-sysv udev dbus kmod initramfs-tools linux-image-amd64 procps
	grub-efi-amd64-signed grub2-common shim-signed mokutil apt-utils)
# ... and what can be.
packages=(linux-headers-amd64 linux-image-6.12-amd64 linux-headers-6.12-amd64 dkms
	gcc libc6-dev openssl xz-utils pkg-config man-db make linux-perf bpftrace)

# What is different from a system that was just installed: its name, a user, and
# the service that runs the script of the second disk.
configure() {
	local root=$1

	echo bus1 >"$root/etc/hostname"
	echo '127.0.0.1 localhost bus1' >"$root/etc/hosts"
	printf '%s\n' 'LABEL=bus1-root / ext4 errors=remount-ro 0 1' \
		'LABEL=BUS1-ESP /boot/efi vfat umask=0077 0 1' >"$root/etc/fstab"
	mkdir -p "$root/boot/efi" "$root/boot/grub"
	chroot "$root" useradd -m -s /bin/bash tester
	cp "$self/proof.service" "$root/etc/systemd/system/"
	chroot "$root" systemctl enable proof.service
	# On a serial port there is nobody to log in.
	chroot "$root" systemctl mask serial-getty@ttyS0.service getty@tty1.service
	chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer \
		dpkg-db-backup.timer e2scrub_all.timer man-db.timer fstrim.timer
	# Where the host is busy, no timer interrupt may come while the kernel checks for it,
	# which is a panic: no_timer_check.
	printf '%s\n' 'GRUB_DEFAULT=0' 'GRUB_TIMEOUT=0' 'GRUB_TERMINAL=console' \
		'GRUB_DISTRIBUTOR=Debian' 'GRUB_DISABLE_OS_PROBER=true' \
		'GRUB_CMDLINE_LINUX="console=ttyS0 tsc=reliable no_timer_check panic=-1 oops=panic"' \
		>"$root/etc/default/grub"
	# The first one; those that follow are made by update-grub.
	printf '%s\n' 'linux /vmlinuz root=LABEL=bus1-root ro console=ttyS0 tsc=reliable no_timer_check panic=-1 oops=panic' \
		'initrd /initrd.img' 'boot' >"$root/boot/grub/grub.cfg"
	# To make a large one takes an emulated machine minutes.
	echo 'MODULES=list' >"$root/etc/initramfs-tools/conf.d/bus1"
	printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic \
		>>"$root/etc/initramfs-tools/modules"
	chroot "$root" update-initramfs -u
	# Nor is an index of all manual pages worth its time here: they are found without.
	echo 'man-db man-db/auto-update boolean false' | chroot "$root" debconf-set-selections
	# An emulated disk that is thrown away needs no sync.
	echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/bus1"
	chroot "$root" apt-get -q -y --no-install-recommends --download-only install \
		"${packages[@]}"
}

# The EFI system partition, with what grub-install would put there.
make_esp() {
	local root=$1 esp=$2

	truncate -s 64M "$esp"
	mformat -i "$esp" -F -v BUS1-ESP ::
	mmd -i "$esp" ::EFI ::EFI/BOOT ::EFI/debian
	mcopy -i "$esp" "$root/usr/lib/shim/shimx64.efi.signed" ::EFI/BOOT/BOOTX64.EFI
	mcopy -i "$esp" "$root/usr/lib/shim/mmx64.efi.signed" ::EFI/BOOT/mmx64.efi
	mcopy -i "$esp" "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" \
		::EFI/BOOT/grubx64.efi
	# shellcheck disable=SC2016 # for GRUB
	printf '%s\n' 'search.fs_label bus1-root root' 'set prefix=($root)/boot/grub' \
		'configfile $prefix/grub.cfg' >grub.cfg
	mcopy -i "$esp" grub.cfg ::EFI/debian/grub.cfg
}

# build: everything, into the current directory, as root
build() {
	trap 'rm -rf root' EXIT
	archives "$release" >sources
	mmdebstrap --mode=root --format=directory --variant=minbase \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt=force-unsafe-io --skip=cleanup/apt,check/empty \
		--include="$(IFS=,; echo "${installed[*]}")" \
		--customize-hook="$self/image.sh configure \"\$1\"" \
		"$release" root - <sources

	make_esp root esp
	truncate -s 4G root.ext4
	mkfs.ext4 -q -L bus1-root -d root root.ext4
	truncate -s 4200M disk.raw
	printf '%s\n' 'label: gpt' 'start=1MiB, size=64MiB, type=uefi' \
		'start=65MiB, size=4096MiB, type=linux' | sfdisk -q disk.raw
	dd if=esp of=disk.raw bs=1M seek=1 conv=notrunc status=none
	dd if=root.ext4 of=disk.raw bs=1M seek=65 conv=notrunc,sparse status=none
	qemu-img convert -O qcow2 disk.raw disk
	rm -rf root root.ext4 disk.raw esp grub.cfg sources
	trap - EXIT
}

case ${1:-} in
configure | build)
	"$@"
	exit
	;;
esac

need mmdebstrap mtools dosfstools e2fsprogs fdisk qemu-utils
apt_lists linux-image-6.12-amd64
key=$({
	cat "$self/image.sh" "$self/proof.service"
	archives "$release"
	for package in "${installed[@]}" "${packages[@]}"; do
		apt_field "$package" Version
	done
} | sha256sum | cut -c1-12)
[ -d "$cache/system/$key" ] || say "building the disk of a Debian system, some minutes"
lock "$cache/system/$key"
cached "system/$key" as_root "$self/image.sh" build
