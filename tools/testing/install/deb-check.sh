#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deb-check.sh
#
# Build the Debian packages twice, in surroundings that are not the same: they must
# be equal, and lintian must have nothing to say. The last line is
# "N passed, N failed, N skipped".

. "$(dirname "$0")/../vm/lib.sh"

dir=$work/deb-check
passed=0 failed=0

check() {
	local name=$1

	shift
	if "$@" >"$dir/out" 2>&1 && [ ! -s "$dir/out" ]; then
		passed=$((passed + 1))
		printf '  %-46s ok\n' "deb $name"
	else
		failed=$((failed + 1))
		printf '  %-46s FAILED\n' "deb $name"
		sed 's/^/    /' "$dir/out"
	fi
}

same() {
	diff <(cd "$dir/1" && sha256sum -- "$1") <(cd "$dir/2" && sha256sum -- "$1")
}

complaints() {
	lintian --allow-root --tag-display-limit 0 --info --pedantic "$dir"/1/*.changes
}

# No file of a package is one that some other package of it has, or lies where
# administrators write.
places() {
	local deb

	for deb in "$dir"/1/*.deb; do
		dpkg-deb -c "$deb" | awk '!/^d/ { print $6 }'
	done | sort | tee "$dir/files" | uniq -d
	grep -vE '^\./(usr/(src/bus1-|include/(linux/bus1\.h$|bus1/)|lib/(udev|modules-load\.d|debug)/|lib/[a-z0-9_-]+/(libbus1\.|pkgconfig/libbus1\.pc$)|share/(doc|man|lintian)/)|lib/udev/)' \
		"$dir/files" || true
}

need lintian
rm -rf "$dir"
mkdir -p "$dir"
(umask 022; TZ=UTC LANG=C "$here/deb.sh" "$dir/1" >/dev/null)
(umask 027; TZ=Asia/Tokyo LANG=C.UTF-8 "$here/deb.sh" "$dir/2" >/dev/null)
check "lintian" complaints
check "files are where they may be" places
for file in "$dir"/1/*.deb "$dir"/1/*.dsc "$dir"/1/*.tar.*; do
	check "built twice the same: ${file##*/}" same "${file##*/}"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
