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

# row NAME: what the table `kernels` says of a kernel. A package is written as apt
# writes it: NAME:ARCHITECTURE/SUITE. What is not said is that of this machine.
# shellcheck disable=SC2034 # for the scripts
row() {
	read -r series package rest < <(
		awk -v name="$1" '$1 == name { $1 = ""; print }' "$here/kernels"
	) || die "no kernel '$1', these are known:" \
		"$(awk '/^[^#]/ { print $1 }' "$here/kernels" | xargs)"
	suite=${package##*/}
	[ "$suite" != "$package" ] || suite=
	package=${package%/*}
	deb_arch=${package##*:}
	[ "$deb_arch" != "$package" ] || deb_arch=amd64
	package=${package%:*}
	# What stands last is what to build, or what to build the module with.
	configs='' compiler=''
	case $package in
	linux-source-*) configs=$rest ;;
	*) compiler=$rest ;;
	esac
}

# What a kernel of the table needs, since it is slow or large, and what else it is
# told at boot. Times for machines without such checks are multiplied by `slow`.
# shellcheck disable=SC2034 # for the scripts
traits() {
	memory=1024 slack=16384 slow=1 append="" abis="native m32" scale="" arch=amd64
	sanitized=""
	case $1 in
	*-arm64*)
		# Nothing of it is this machine's language.
		arch=arm64 abis="arm64 armhf" slow=2 scale=1
		;;
	esac
	case $1 in
	*-16k)
		# Pages that are four times as large.
		memory=2048 slack=65536
		;;
	esac
	case $1 in
	6.1 | 6.1-*)
		append="slub_debug=FZP,bus1*"
		;;
	6.12)
		# What the library does wrong is no matter of kernels.
		[ -n "${BUS1_ABIS:-}" ] || sanitized=" asan"
		append="kfence.sample_interval=20"
		;;
	6.12-* | 7.3 | 7.3-*)
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

# Where the packages of a release come from, its backports, too, if they are asked
# for: from where this machine's come. In the form of sources.list.
archives() {
	local release=${1%-backports} lines

	need debian-archive-keyring
	# shellcheck disable=SC2016 # for apt
	lines=$(env -u APT_CONFIG apt-get indextargets 'Created-By: Packages' 'Origin: Debian' \
		--format '$(RELEASE) deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		sed -nE 's/^bookworm(-updates|-security)? deb/deb/p' | sort -u)
	[ -n "$lines" ] || die "apt knows no bookworm of Debian"
	echo "${lines// bookworm/ $release}"
	[ "$release" = "$1" ] || sed -n "s/ bookworm / $1 /p" <<<"$lines"
}

# archive SUITE ARCHITECTURE: from now on, the functions below know the packages of
# another architecture, or of another release than this machine has installed, and
# prefer what the suite has. They have lists of their own: those of the machine stay
# as they are.
archive() {
	local suite=${1:-bookworm} release dir

	unset APT_CONFIG
	lists=/var/lib/apt/lists
	[ "$suite/$2" != bookworm/amd64 ] || return 0
	release=${suite%-backports}
	dir=$cache/apt/$release-$2
	lists=$dir/lists
	mkdir -p "$lists/partial" "$dir/archives/partial"
	[ -e "$dir/status" ] || : >"$dir/status"
	archives "$suite" >"$dir/list.$$"
	cat >"$dir/conf.$$" <<-EOF
		APT::Architecture "$2";
		APT::Architectures { "$2"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Dir::State "$dir";
		Dir::State::lists "$lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir";
		Dir::Etc::sourcelist "$dir/$suite.list";
		Dir::Etc::sourceparts "-";
	EOF
	[ "$suite" = "$release" ] ||
		echo "APT::Default-Release \"$suite\";" >>"$dir/conf.$$"
	mv "$dir/list.$$" "$dir/$suite.list"
	mv "$dir/conf.$$" "$dir/$suite.conf"
	export APT_CONFIG=$dir/$suite.conf
}

apt_update() {
	say "apt-get update${APT_CONFIG:+ (${APT_CONFIG#"$cache/apt/"})}"
	if [ -n "${APT_CONFIG:-}" ]; then
		apt-get -qq update >&2 || true
	else
		as_root apt-get -qq update >&2 || true
	fi
}

# apt_field PACKAGE[=VERSION] FIELD: one field of a package that apt knows. Where
# apt keeps no index it takes seconds, so remember the answer with the lists.
lists=/var/lib/apt/lists
apt_field() {
	local id file

	id=$(stat -c '%n %s %Y' "$lists"/*_Packages* 2>/dev/null |
		cat - "${APT_CONFIG:-/dev/null}" | sha256sum | cut -c1-12)
	file=$cache/apt/$id/$1.$2
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
	[ -n "$(apt_field "$1" Version)" ] || apt_update
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
	# This machine's, whatever archive is looked at.
	(
		unset APT_CONFIG
		lists=/var/lib/apt/lists
		apt_lists "${missing[0]}"
		apt_install "${missing[@]}" || {
			apt_update
			apt_install "${missing[@]}"
		}
	) || die "cannot install ${missing[*]}"
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
	apt_update
	apt-get -qq download "$@" >&2 || die "cannot download $*"
}

# in_root ROOT COMMAND...: run a command in another system, that sees this tree and
# the cache where they are here. What is mounted for that is gone with it.
in_root() {
	# shellcheck disable=SC2016 # for that shell
	as_root unshare -m sh -euc '
		root=$1 top=$2 cache=$3 user=$4
		shift 4
		mkdir -p "$root$top" "$root$cache"
		mount --bind "$top" "$root$top"
		mount --bind "$cache" "$root$cache"
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		exec chroot --userspec="$user" "$root" env -i PATH="$PATH" LC_ALL=C HOME=/ "$@"
	' sh "$1" "$top" "$cache" "$(id -u):$(id -g)" "${@:2}"
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
