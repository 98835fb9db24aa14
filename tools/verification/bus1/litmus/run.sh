#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run.sh [TEST...]
#
# Ask herd7 about each litmus test in this directory, or those that are given by
# name, under the memory model of the kernel. A test says in its comment what the
# answer has to be. The last line is "N passed, N failed, N skipped"; without
# herd7, all are skipped.
#
# HERD7 names a herd7 to use. Otherwise an installed one is taken, or that of the
# first Debian that has it, unpacked next to the C library that it needs.

# shellcheck source=lib.sh
. "$(dirname "$0")/../../../testing/vm/lib.sh"

litmus=$top/tools/verification/bus1/litmus
suite=forky

# apt-get for another release of Debian, in $apt. It checks signatures like apt
# always does, and leaves the machine's lists alone.
other_apt_get() {
	apt-get -qq -o "Dir::Etc::SourceList=$apt/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null \
		-o "Dir::State::Lists=$apt/lists" \
		-o Dir::State::Status=/dev/null \
		-o "Dir::Cache=$apt" \
		-o APT::Default-Release= \
		-o APT::Sandbox::User=root \
		-o Acquire::Languages=none \
		-o Acquire::http::Timeout=30 "$@"
}

# That release, from where this machine gets its own.
debian_source() {
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg codename uri

	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	# shellcheck disable=SC2016 # apt replaces these
	uri=$(apt-get indextargets --format \
		'$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
		awk -v release="$codename" '$1 == "Packages" && $2 == release &&
			$3 == "main" && !uri { uri = $4 } END { print uri }')
	[ -n "$uri" ] && [ -e "$keys" ] &&
		echo "deb [signed-by=$keys] $uri $suite main"
}

unpack_herd7() {
	local apt=$PWD/apt deb

	mkdir -p apt/lists/partial apt/archives/partial root
	debian_source >apt/sources.list || {
		echo "apt knows of no Debian, or its keys are missing"
		return 1
	}
	other_apt_get update || return
	(cd root && other_apt_get download herdtools7 libc6 libgmp10) || return
	for deb in root/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -xC root --wildcards './usr/lib/*/*.so*' \
				./usr/bin/herd7 ./usr/share/herdtools7 2>/dev/null || :
	done
	rm -rf root/*.deb apt
	[ -x root/usr/bin/herd7 ]
}

# The definition of the model, out of the kernel's source.
unpack_model() {
	apt_download "$package=$version"
	dpkg-deb --fsys-tarfile ./*.deb | tar -xO "./usr/src/$package.tar.xz" |
		tar -xJ --strip-components=1 "$package/tools/memory-model"
	rm ./*.deb
}

skip_all() {
	local test

	for test in "${tests[@]}"; do
		echo "ok - litmus $test # SKIP $1"
	done
	echo "0 passed, 0 failed, ${#tests[@]} skipped"
	exit 0
}

# Set ${herd[@]}.
find_herd7() {
	local root lib

	if [ -n "${HERD7:-}" ] || command -v herd7 >/dev/null; then
		herd=("${HERD7:-herd7}")
		return
	fi
	[ -d "$cache/herdtools7/$suite" ] ||
		say "fetching herd7 out of Debian $suite, 50 MB"
	# In a process of its own, since that ends if it cannot be had.
	root=$(cached "herdtools7/$suite" unpack_herd7)/root || return
	lib=$(echo "$root"/usr/lib/*-linux-gnu*)
	herd=("$(echo "$lib"/ld-linux*.so.*)" --library-path "$lib"
		"$root/usr/bin/herd7" -set-libdir "$root/usr/share/herdtools7/herd")
	"${herd[@]}" -version >/dev/null
}

# Set $model.
find_model() {
	package=linux-source-6.12
	apt_lists "$package"
	version=$(apt_field "$package" Version)
	[ -n "$version" ] || return
	model=$cache/kernel-source/${version//:/%}
	if [ ! -d "$model" ]; then
		[ -d "$cache/memory-model/${version//:/%}" ] ||
			say "fetching the memory model out of $package ($version), 150 MB"
		model=$(cached "memory-model/${version//:/%}" unpack_model) || return
	fi
	model+=/tools/memory-model
}

expectation() {
	sed -n 's/^ \* Result: //p' "$litmus/$1.litmus"
}

# Is what herd7 says what the test expects?
run() {
	local expected got

	expected=$(expectation "$1")
	(cd "$model" && timeout 300 "${herd[@]}" -conf linux-kernel.cfg \
		"$litmus/$1.litmus") >"$out" 2>&1 || true
	got=$(awk '$1 == "Observation" { print $3 }' "$out")
	[ -n "$expected" ] && [ "$got" = "$expected" ] && return
	echo "# expected: ${expected:-(it does not say)}, herd7 says: ${got:-nothing}"
	sed 's/^/# /' "$out"
	return 1
}

# What must not happen must be able to: each test needs a broken variant.
is_broken() {
	local variant

	case $1 in *-*) return 0 ;; esac
	for variant in "$litmus/$1"-*.litmus; do
		[ -e "$variant" ] &&
			[ "$(expectation "$(basename "$variant" .litmus)")" = Sometimes ] &&
			return
	done
	echo "# no variant of it that is broken"
	return 1
}

tests=("$@")
if [ $# = 0 ]; then
	for file in "$litmus"/*.litmus; do
		tests+=("$(basename "$file" .litmus)")
	done
fi

echo "TAP version 13"
echo "1..${#tests[@]}"
find_herd7 || skip_all "herd7 is not installed, and cannot be had from Debian $suite"
find_model || skip_all "apt knows no $package, which has the memory model"
say "herd7 $("${herd[@]}" -version | sed 's/,.*//'), model of $package $version"

out=$(mktemp)
trap 'rm -f "$out"' EXIT
passed=0 failed=0
for test in "${tests[@]}"; do
	if [ -e "$litmus/$test.litmus" ] && is_broken "$test" && run "$test"; then
		passed=$((passed + 1))
		echo "ok $((passed + failed)) - litmus $test: $(expectation "$test")"
	else
		failed=$((failed + 1))
		echo "not ok $((passed + failed)) - litmus $test"
	fi
done

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
