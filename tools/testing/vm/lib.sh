# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the scripts in this directory share. Each of them does one step, prints
# its result (a path) to stdout, and tells a person on stderr what it does.
#
# Nothing is ever written into the source tree. What comes from the network or
# depends on nothing but a package lives in $cache, by name and version, and is
# put there whole, by a rename. What depends on this tree lives in $work.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../../.." && pwd)
cache=${BUS1_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/bus1}
work=$cache/trees/$(printf '%s' "$top" | sha256sum | cut -c1-12)
# shellcheck disable=SC2034 # for the scripts
jobs=$(nproc)

# What make was told that called us is not meant for the builds in here.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

# What administrators have in their path is needed by everybody here.
export PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C HOME=${HOME:-/}
export BUS1_START=${BUS1_START:-$(date +%s)}

mkdir -p "$work"

say() {
	printf '[%4ds] %s\n' $(($(date +%s) - BUS1_START)) "$*" >&2
}

# The lines of a list in this directory, without comments.
list() {
	sed '/^#/d; /^$/d' "$here/$1"
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# Until this script ends, nobody else builds there.
lock() {
	mkdir -p "$(dirname "$1")"
	exec 8>"$1.lock"
	flock 8
}

# What a kernel of the table needs, since it is slow or large, and what else it is
# told at boot. Times for machines without such checks are multiplied by `slow`.
# shellcheck disable=SC2034 # for the scripts
traits() {
	memory=1024 slack=16384 slow=1 append="" abis="native m32" scale=""
	case $1 in
	6.1 | 6.1-*)
		append="slub_debug=FZP,bus1*"
		;;
	6.12 | 6.12-*)
		append="kfence.sample_interval=20"
		;;
	debug | leaks)
		# KASAN keeps what is freed for a while, a 32nd of the memory.
		memory=3072 slack=131072 slow=10 scale=1 abis=native
		# With five levels of page tables a check of KASAN is wrong for a
		# moment of the boot: while the features of the CPU are read anew.
		append="page_poison=1 panic_on_warn=1 no5lvl"
		# To watch for leaks makes all of it three times slower.
		[ "$1" = leaks ] && slow=30 || append+=" kmemleak=off"
		;;
	race)
		# Look at one access in a few hundred, and for long enough for
		# the other CPU of an emulated machine to get there.
		memory=2048 slack=65536 slow=8 scale=1 abis=native
		append="kcsan.skip_watch=500 kcsan.udelay_task=300"
		;;
	um)
		abis=native scale=1 append="slub_debug=FZP,bus1*"
		;;
	um-kasan)
		slack=65536 slow=4 abis=native scale=1
		;;
	fuzz)
		append="slub_debug=FZP,bus1*"
		;;
	esac
	append+=" ${BUS1_APPEND:-}"
	abis=${BUS1_ABIS:-$abis}
	scale=${BUS1_STRESS_SCALE:-$scale}
}

# Run a command as root.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		command -v sudo >/dev/null ||
			die "this needs root: $*"
		sudo "$@"
	fi
}

# apt_field PACKAGE[=VERSION] FIELD: one field of a package that apt knows. Where
# apt keeps no index it takes seconds, so remember the answer with the lists.
apt_field() {
	local lists file

	lists=$(stat -c '%n %s %Y' /var/lib/apt/lists/*_Packages* 2>/dev/null |
		sha256sum | cut -c1-12)
	file=$cache/apt/$lists/$1.$2
	if [ ! -s "$file" ]; then
		mkdir -p "${file%/*}"
		apt-cache show --no-all-versions "$1" 2>/dev/null |
			sed -n "s/^$2: //p" | sed 1q >"$file.$$" || true
		mv "$file.$$" "$file"
	fi
	cat "$file"
}

# The package lists of a fresh machine or container are empty.
apt_lists() {
	if [ -z "$(apt_field "$1" Version)" ]; then
		say "apt-get update"
		as_root apt-get -qq update >&2 || true
	fi
}

# Install the packages that are missing.
need() {
	local pkg missing=()

	for pkg; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$pkg" 2>/dev/null)" = installed ] ||
			missing+=("$pkg")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	say "apt-get install ${missing[*]}"
	apt_lists "${missing[0]}"
	apt_install "${missing[@]}" || {
		as_root apt-get -qq update >&2 || true
		apt_install "${missing[@]}"
	} || die "cannot install ${missing[*]}"
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
		-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@" \
		</dev/null >"$work/apt.log" 2>&1 || {
		cat "$work/apt.log" >&2
		return 1
	}
}

# Download packages (name=version) into the current directory.
apt_download() {
	apt-get -qq download "$@" >/dev/null 2>&1 && return

	# Lists that are older than the archive name files that are gone.
	as_root apt-get -qq update >&2 || true
	apt-get -qq download "$@" >&2 || die "cannot download $*"
}

# Make a directory in the cache: once $1 there is complete, it is returned; or
# else the function $2 fills an empty directory, which then takes that place.
cached() {
	local dir=$cache/$1 tmp r

	shift
	if [ ! -d "$dir" ]; then
		# What was interrupted is of no use.
		find "$cache" -maxdepth 1 -name 'tmp.*' -mmin +120 -exec rm -rf {} +
		mkdir -p "$(dirname "$dir")"
		tmp=$(mktemp -d "$cache/tmp.XXXXXX")
		# Not in a condition: there, bash would forget about set -e.
		set +e
		(set -e; cd "$tmp"; "$@") >&2
		r=$?
		set -e
		[ "$r" = 0 ] || { rm -rf "$tmp"; die "$* failed"; }
		chmod 755 "$tmp"
		# Somebody else may have been faster.
		mv -T "$tmp" "$dir" 2>/dev/null || rm -rf "$tmp"
	fi
	[ -d "$dir" ] || die "cannot fill $dir"
	printf '%s\n' "$dir"
}
