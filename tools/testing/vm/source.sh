#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# source.sh
#
# Take the kernel's test harness and its style checkers out of Debian's package
# of the kernel's sources, and print the directory that they are in, laid out as
# in the kernel.

. "$(dirname "$0")/lib.sh"

package=linux-source-6.12
files=(
	scripts/checkpatch.pl
	scripts/const_structs.checkpatch
	scripts/kernel-doc
	scripts/spelling.txt
	tools/scripts/Makefile.arch
	tools/scripts/Makefile.include
	tools/testing/selftests/kselftest.h
	tools/testing/selftests/kselftest_harness.h
	tools/testing/selftests/lib.mk
)

unpack() {
	apt_download "$package=$1"
	dpkg-deb --fsys-tarfile ./*.deb |
		tar -xO "./usr/src/$package.tar.xz" |
		tar -xJ --strip-components=1 "${files[@]/#/$package/}"
	rm ./*.deb
}

apt_lists "$package"
version=$(apt_field "$package" Version)
[ -n "$version" ] || die "apt knows no $package: bookworm-security has it"

key=$(printf '%s\n' "$version" "${files[@]}" | sha256sum | cut -c1-12)
[ -d "$cache/source/$key" ] ||
	say "fetching the test harness out of $package ($version), 150 MB"
cached "source/$key" unpack "$version"
