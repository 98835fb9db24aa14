#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deb.sh [-v VERSION] [DIRECTORY]
#
# Build the Debian packages, source and binary, of a copy of the tree, as VERSION
# or as what they are. They go to DIRECTORY, or else to build/ in the tree, which
# is printed.

. "$(dirname "$0")/lib.sh"

version=
[ "${1:-}" != -v ] || { version=${2:?}; shift 2; }
to=${1:-$top/build}

# What debian/control wants to build it.
mapfile -t depends < <(sed -n 's/^Build-Depends: //p' "$top/debian/control" |
	tr -d ' ' | tr ',' '\n' | sed 's/(.*//; s/^debhelper-compat$/debhelper/; s/^dh-sequence-/dh-/')
need make dpkg-dev "${depends[@]}"

lock "$work/deb"
dir=$work/deb/bus1
rm -rf "$work/deb"
mkdir -p "$dir"
# All that belongs to the sources, and nothing that somebody has built.
(cd "$top" && tar -c --exclude=./.git --exclude=./build --exclude-from=.gitignore \
	--exclude-vcs-ignores .) | tar -x -C "$dir"
cd "$dir"
[ -z "$version" ] || tools/version set "$version"

say "building the Debian packages, version $(tools/version)"
dpkg-buildpackage -us -uc >"$work/deb/log" 2>&1 || {
	cat "$work/deb/log" >&2
	die "the Debian packages do not build"
}
mkdir -p "$to"
rm -f "$to"/{,lib}bus1*_*.{deb,dsc,buildinfo,changes} "$to"/bus1_*.tar.*
mv ../{,lib}bus1*_* "$to/"
echo "$to"
