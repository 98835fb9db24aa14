#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What the Debian system does that image.sh has built, once it has booted. One
# line for each check goes to stdout, "ok NAME" or "not ok NAME", and behind "# "
# what commands have printed; or "skip NAME". The last line is "end". The part of the
# proof, and everything else, lies beside this script:
#	stage		what to do in this boot
#	debs/old, debs/new	the packages, in two versions
#	tests/		programs of the selftests
#	source/		the sources
#	recipes/	commands of the documentation
#	patterns	what must not be in the kernel's log

# shellcheck disable=SC2317 # check calls them
set -o pipefail
proof=/run/proof
stage=$(cat "$proof"/stage)
log=/tmp/log
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

finish() {
	echo "end"
	sync
	systemctl --no-block reboot
	exit
}

# check NAME COMMAND...: it must succeed, or what follows makes no sense. $lines is how
# much of what it prints is shown, besides the first line.
check() {
	local name=$1 result="not ok"

	shift
	! "$@" >"$log" 2>&1 || result=ok
	echo "$result $name"
	awk -v n="${lines:-60}" '{ text[NR] = $0 } END {
		for (i = 1; i <= NR; i++)
			if (i == 1 || i > NR - n)
				print "# " text[i] }' "$log"
	[ "$result" = ok ] || finish
}

is() {
	echo "'$1', and it should be '$2'"
	[ -n "$2" ] && [ "$1" = "$2" ]
}

# Nobody is there to be asked.
printf '%s\n' 'APT::Get::Assume-Yes "true";' 'quiet "1";' 'Dpkg::Use-Pty "false";' \
	>/etc/apt/apt.conf.d/proof

apt_install() {
	echo "# apt install $*"
	apt install "$@"
}

# From files, in a directory that apt's own user can read, too.
apt_install_files() {
	local names=("${@##*/}")

	cp "$@" /tmp/ && (cd /tmp && apt_install "${names[@]/#/./}") 2>&1 | tee /tmp/apt
}

# The version that is installed.
version() {
	sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' /usr/src/bus1-*/dkms.conf
}

loaded_version() {
	cat /sys/module/bus1/version
}

device_is_there() {
	udevadm settle
	is "$(stat -c '%F %A %U %G' /dev/bus1)" 'character special file crw-rw-rw- root root'
}

rule_decides() {
	udevadm test /sys/class/misc/bus1 >/tmp/udev 2>&1
	grep -E '60-bus1.rules:[0-9]+ (MODE|Setting mode)' /tmp/udev
}

dkms_has() {
	dkms status | tee /tmp/dkms
	grep -xE "bus1/$1, $2, x86_64: installed" /tmp/dkms
}

# modinfo is content with a module that has no signature.
signed() {
	is "$(modinfo -F signer bus1)" "DKMS module signing key"
}

# One program, as somebody who may nothing.
selftest() {
	local out

	cd "$proof"/tests || return
	out=$(timeout 900 runuser -u tester -- "./$1" 2>&1)
	echo "$out" | grep -vE '^ok |^#  ' | tail -n 30
	echo "$out" | awk '/^ok .*# SKIP/ { skipped++; next } /^ok / { passed++ }
		/^not ok / { failed++ } END {
		printf "%d passed, %d skipped, %d failed\n", passed, skipped, failed
		exit !(passed && !failed) }'
}

selftests() {
	local program

	check "the tests run as $(runuser -u tester -- id -un)" \
		is "$(runuser -u tester -- id -u)" 1000
	for program; do
		check "$program, as an unprivileged user" selftest "test_$program"
	done
}

log_is_clean() {
	dmesg >/tmp/dmesg
	[ -s /tmp/dmesg ] && ! grep -E -f "$proof"/patterns /tmp/dmesg
}

# What has the name in it, but for the logs, what apt remembers, and ourselves.
traces() {
	find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp \
		-o -path /var/log -o -path /var/lib/apt -o -path /var/cache \) -prune \
		-o -name '*bus1*' -print | grep -v '^/etc/.*/bus1$\|^/etc/dpkg/dpkg.cfg.d/bus1$'
	grep -rl bus1 /lib/modules/*/modules.* /var/lib/dkms /var/lib/dpkg/status \
		/etc/modules* /etc/modprobe.d /etc/udev /boot/initrd* /etc/ld.so.cache 2>/dev/null
	ls /dev/bus1 /sys/module/bus1 /sys/class/misc/bus1 2>/dev/null
	:
}

no_traces() {
	traces >/tmp/traces
	cat /tmp/traces
	[ ! -s /tmp/traces ]
}

# A program that has a peer open, until it is told to go.
peer_start() {
	mkfifo -m 666 /tmp/go /tmp/ready
	# shellcheck disable=SC2016 # for that shell
	setsid runuser -u tester -- bash -c \
		'{ exec 3<>/dev/bus1; } && echo $$ >/tmp/ready && read -r _ </tmp/go ||
			echo >/tmp/ready' &
	read -r peer </tmp/ready
	[ -n "$peer" ] || return
	cat "/proc/$peer/fdinfo/3" >/tmp/before
	echo "peer: $peer"
	grep max_slices /tmp/before || cat /tmp/before
}

peer_is_alive() {
	diff /tmp/before "/proc/$peer/fdinfo/3"
}

peer_stop() {
	echo go >/tmp/go
	wait
}

upgrade_leaves_a_peer_alone() {
	apt_install_files "$proof"/debs/new/bus1-dkms_*.deb &&
		grep -q 'bus1-dkms: /dev/bus1 is in use' /tmp/apt
}

example_compiles() {
	cd /tmp && gcc -o hello /usr/share/doc/bus1-dev/examples/hello.c && ./hello
}

# types PROMPT COMMAND PATTERN...: what a person types, with "#" as root, with "$" as
# somebody who may nothing. The log has it as on a terminal. Each pattern has to be in
# what it prints.
types() {
	local prompt=$1 command=$2 pattern
	local shell=(bash -o pipefail -c "cd /home/tester && $command")

	[ "$prompt" = '#' ] || shell=(runuser -u tester -- "${shell[@]}")
	shift 2
	echo "$prompt $command"
	"${shell[@]}" >/tmp/typed 2>&1 || {
		echo "exit status $?"
		cat /tmp/typed
		return 1
	}
	cat /tmp/typed
	for pattern; do
		grep -qE -e "$pattern" /tmp/typed || {
			echo "no '$pattern' in it"
			return 1
		}
	done
}

greeting=('^the service says "hello, world"$' '^and has no clients any more$')

# What README.md and the tutorial tell somebody to do who has never seen it.
# shellcheck disable=SC2016 # for that shell
newcomer() {
	check "apt install ./{libbus1-1,libbus1-dev,bus1-tools}_*.deb" apt_install_files \
		"$proof"/debs/old/{libbus1-1,libbus1-dev,bus1-tools}_*.deb
	check "apt install of pkg-config and man" apt_install pkg-config man-db
	check "the newcomer looks for the manual" types '$' 'man -w 1 bus1 7 bus1 3 libbus1' \
		'/man1/bus1\.1\.gz$' '/man7/bus1\.7\.gz$' '/man3/libbus1\.3\.gz$'
	check "reads it" types '$' 'man bus1 | sed -n 1,12p' \
		'^ +bus1 - look inside the message bus' '^ +bus1 peers '
	check "copies a sample" types '$' 'cp /usr/share/doc/bus1-dev/examples/greet.c .'
	check "builds it" types '$' 'cc greet.c $(pkg-config --cflags --libs libbus1) -o greet'
	check "with the shared library" types '$' 'ldd greet' \
		'libbus1\.so\.1 => /lib/x86_64-linux-gnu/libbus1\.so\.1'
	check "runs it" types '$' './greet' "${greeting[@]}"
	watched
	lines=500 check "sees the chart" types '$' 'cat chart.svg' '<svg' '</svg>' 'greet'
}

# The request has a handle for the reply; the node of the service is released at the end.
watched() {
	check "watches it" types '#' \
		'bus1 trace --svg=chart.svg -- runuser -u tester -- ./greet' "${greeting[@]}" \
		' message +[0-9]+\(greet\) -> [0-9]+\(greet\) node 0x[0-9a-f]+  5 bytes, 1 handle ' \
		' message +[0-9]+\(greet\) -> [0-9]+\(greet\) node 0x[0-9a-f]+  12 bytes ' \
		' release +[0-9]+\(greet\) -> [0-9]+\(greet\) '
}

reload() {
	modprobe -r bus1 && modprobe bus1
}

kernels() {
	for kernel in /lib/modules/*/build; do
		kernel=${kernel%/build}
		echo "${kernel##*/}"
	done
}

install_first() {
	check "kernel 6.1 has booted" is "$(uname -r | cut -d. -f1,2)" 6.1
	check "bus1 is not there yet" no_traces
	check "apt install of the kernel's headers" apt_install linux-headers-amd64
	check "apt install ./bus1-dkms_*.deb" apt_install_files "$proof"/debs/old/bus1-dkms_*.deb
	old=$(version)
	check "DKMS has built it" dkms_has "$old" "$(uname -r)"
	check "the module is loaded" is "$(loaded_version)" "$old"
	check "DKMS has signed it" signed
	check "/dev/bus1 has the right mode" device_is_there
	check "by the rule of the package" rule_decides
}

stage_first() {
	install_first
	check "what is in modinfo" modinfo bus1
	check "apt install ./bus1-dev_*.deb" apt_install_files "$proof"/debs/old/bus1-dev_*.deb
	check "apt install of a compiler" apt_install gcc libc6-dev
	check "an example compiles and runs" example_compiles
	newcomer
	selftests peer node handle transfer send send_data send_multi recv poll pool \
		release disconnect seed badinput files
	check "nothing in the kernel's log" log_is_clean
}

stage_upgrade() {
	old=$(version)
	check "kernel 6.1 has booted" is "$(uname -r | cut -d. -f1,2)" 6.1
	check "the module was loaded at boot" is "$(loaded_version)" "$old"
	check "/dev/bus1 has the right mode" device_is_there
	check "a peer is open" peer_start
	check "bus1 shows it" types '$' 'bus1 peers' " $peer .* bash\$"
	check "apt install of a newer version meanwhile" upgrade_leaves_a_peer_alone
	check "the peer has not noticed" peer_is_alive
	check "the old module is still loaded" is "$(loaded_version)" "$old"
	new=$(version)
	check "DKMS has the new version" dkms_has "$new" "$(uname -r)"
	check "and the old one is gone" is "$(echo /usr/src/bus1-*)" "/usr/src/bus1-$new"
	check "the peer is closed" peer_stop
	check "the module is loaded again" reload
	check "it is the new one" is "$(loaded_version)" "$new"
	check "/dev/bus1 is there again" device_is_there

	check "apt install of kernel 6.12" apt_install linux-image-6.12-amd64 \
		linux-headers-6.12-amd64
	check "DKMS has built it for that, too" dkms_has "$new" "6\.12\..*"
	check "nothing in the kernel's log" log_is_clean
}

# bpftrace says that it attaches before it does so: then it waits for events, by epoll_wait()
# or epoll_pwait(). It is in the process group $1.
is_attached() {
	grep -q '^Attaching' /tmp/output &&
		grep -qE '^(232|281) ' "/proc/$(pgrep -o -g "$1" -x bpftrace)/syscall" 2>/dev/null
}

# What the pages about tracing and performance tell somebody to type, with those tools
# that Debian has for it. A command that would go on for ever is ended by Ctrl-C.
recipe() {
	local file=$1 ends=$2 pid i

	sed 's:/path/to/bench:/var/tmp/source/tools/testing/bench/bench:' "$file" >/tmp/recipe
	: >/tmp/output
	if [ "$ends" = ends ]; then
		timeout 600 bash -ec "cd /var/tmp/source; $typed . /tmp/recipe" >/tmp/output 2>&1
	else
		# In a group of its own, where SIGINT is not ignored
		setsid env --default-signal=INT bash -c "cd /var/tmp; $typed . /tmp/recipe" \
			>/tmp/output 2>&1 &
		pid=$!
		for ((i = 0; i < 240; ++i)); do
			sleep 0.5
			! is_attached "$pid" || break
			kill -0 "$pid" 2>/dev/null || break
			[ "$ends" = bpftrace ] || [ "$i" -lt 20 ] || break
		done
		sleep 3
		load >/tmp/load 2>&1 || cat /tmp/load
		sleep 1.5
		# bpftrace has been seen to go on as if nothing had been pressed: again, then
		for ((i = 0; i < 10; ++i)); do
			kill -INT -- "-$pid" 2>/dev/null || break
			timeout 10 tail --pid="$pid" -f /dev/null && break
		done
		wait "$pid"
	fi
}

# The shell of a person has these.
typed='sudo() { "$@"; }; less() { cat "$@"; };'

# Messages, to one and to several, handles, and many a refusal
load() {
	runuser -u tester -- /home/tester/greet && runuser -u tester -- "$proof"/tests/test_send
}

# Each map that a program of bpftrace has is in what it prints, and what it prints by
# itself; no event was lost, and nothing else was said.
bpftrace_tells() {
	local map

	! grep -iE 'error|warn|lost|fail' <(grep -v ' error -' /tmp/output) || return
	while read -r map; do
		grep -qE "^$map(\[|:)" /tmp/output || {
			echo "nothing is in '$map'"
			return 1
		}
	done < <(grep -o '@[a-z]*' /tmp/recipe | sort -u)
	! grep -q printf /tmp/recipe || grep -qE 'peer [0-9]+' /tmp/output
}

recipe_works() {
	local file=$1 how=ends pattern='' status=0

	case $(sed 1d "$file") in
	bpftrace*) how=bpftrace ;;
	rmdir*) ;;
	*trace_pipe*) how=pipe pattern='bus1_commit: .*sender=' ;;
	*audit.data*) how=audit ;;
	*'hist:'*) how=hist pattern='sender: +[0-9]+, peer: +[0-9]+ \} hitcount: ' ;;
	*'make -C'*) pattern='^R.oneway-64.bus1.*ns' ;;
	*'perf stat'*) pattern='instructions:k' ;;
	*'perf record -g'*) pattern='\[k\] bus1_' ;;
	*function_graph*) pattern='bus1_fop_ioctl' ;;
	*':mod:bus1'*) pattern='^ *[0-9]+ bus1_' ;;
	*nop*) ;;
	*)
		echo "no such recipe is known here"
		return 1
		;;
	esac
	if [ "$how" = hist ]; then
		# The load comes when the kernel counts.
		sed '0,/trigger$/s/trigger$/&; load/' "$file" >/tmp/hist
		file=/tmp/hist how=ends
		export -f load
		export proof
	fi
	recipe "$file" "$how" || status=$?
	if [ "$how" = audit ]; then
		perf script -i /var/tmp/audit.data >>/tmp/output
		pattern='bus1:bus1_command_failed: .*error'
	fi
	sed 's/^/| /' /tmp/recipe
	tail -n 40 /tmp/output
	case $how in
	bpftrace)
		bpftrace_tells
		return
		;;
	ends) [ "$status" = 0 ] || return ;;
	esac
	[ -z "$pattern" ] || grep -qE -e "$pattern" /tmp/output
}

stage_recipes() {
	local file name

	check "apt install of perf and bpftrace" apt_install linux-perf bpftrace make
	cp -r "$proof"/source /var/tmp/source
	for file in "$proof"/recipes/tracing-* "$proof"/recipes/performance-*; do
		name=$(sed -n '1s/^# //; 1s/::$//; 1p' "$file")
		if grep -q 'perf c2c' "$file"; then
			echo "skip $name (an emulated CPU does not sample memory accesses)"
			continue
		fi
		check "$name" recipe_works "$file"
	done
	check "nothing in the kernel's log" log_is_clean
}

stage_second() {
	new=$(version)
	check "kernel 6.12 has booted" is "$(uname -r | cut -d. -f1,2)" 6.12
	check "the module was loaded at boot" is "$(loaded_version)" "$new"
	check "/dev/bus1 has the right mode" device_is_there
	selftests peer send recv transfer pool
	watched
	check "nothing in the kernel's log" log_is_clean
	check "apt purge" apt purge bus1-dkms bus1-dev \
		libbus1-1 libbus1-dev bus1-tools
	check "nothing is left" no_traces

	cp -r "$proof"/source /tmp/source
	check "make dkms-install" make -C /tmp/source dkms-install
	check "for all kernels that have headers" is \
		"$(dkms status -m bus1 | grep -c ': installed$')" "$(kernels | wc -l)"
	check "modprobe" modprobe bus1
	check "the module is loaded" is "$(loaded_version)" \
		"$(/tmp/source/tools/version)"
	check "modprobe -r" modprobe -r bus1
	check "make dkms-remove" make -C /tmp/source dkms-remove
	check "nothing is left" no_traces
}

# Nothing says that the kernel trusts a key which lies on the disk.
stage_secure() {
	check "Secure Boot is on" sh -c 'mokutil --sb-state | grep -x "SecureBoot enabled"'
	check "apt install of the kernel's headers" apt_install linux-headers-amd64
	check "apt install ./bus1-dkms_*.deb" apt_install_files "$proof"/debs/old/bus1-dkms_*.deb
	check "apt tells that it is not loaded, and where to read on" \
		grep 'bus1-dkms: to be enrolled' /tmp/apt
	check "DKMS has signed it" signed
	check "modprobe is refused" refused 'bus1'
	check "no /dev/bus1" test ! -e /dev/bus1
	check "the key is not enrolled" sh -c \
		'mokutil --test-key /var/lib/dkms/mok.pub | grep "is not enrolled"'

	sed -i 's/^GRUB_CMDLINE_LINUX="/&module.sig_enforce=1 /' /etc/default/grub
	check "module.sig_enforce=1 from the next boot on" update-grub
}

# It says so, and it is not there.
refused() {
	! modprobe bus1 2>/tmp/modprobe || return
	cat /tmp/modprobe
	dmesg | tail -n 5
	[ ! -e /sys/module/bus1 ] && grep -E "${1:?}" /tmp/modprobe
}

stage_enforced() {
	check "Secure Boot is on" sh -c 'mokutil --sb-state | grep -x "SecureBoot enabled"'
	check "signatures are enforced" is "$(cat /sys/module/module/parameters/sig_enforce)" Y
	check "the module was not loaded at boot" test ! -e /sys/module/bus1
	check "modprobe: Key was rejected by service" refused 'Key was rejected by service'

	mokutil --generate-hash="$(cat "$proof/password")" >/tmp/hash
	check "mokutil --import" mokutil --hash-file /tmp/hash --import /var/lib/dkms/mok.pub
	check "it waits for MokManager" sh -c \
		'mokutil --test-key /var/lib/dkms/mok.pub | grep "already in the enrollment request"'
}

stage_enrolled() {
	check "Secure Boot is on" sh -c 'mokutil --sb-state | grep -x "SecureBoot enabled"'
	check "signatures are enforced" is "$(cat /sys/module/module/parameters/sig_enforce)" Y
	check "the key is enrolled" sh -c \
		'mokutil --test-key /var/lib/dkms/mok.pub | grep "is already enrolled"'
	check "the module was loaded at boot" is "$(loaded_version)" "$(version)"
	check "/dev/bus1 has the right mode" device_is_there
	selftests peer send
	check "modprobe -r" modprobe -r bus1
	# Where the kernel's own modules are compressed, so is this one.
	xz -dcf "$(modinfo -n bus1)" >/tmp/bus1.ko
	strip -g /tmp/bus1.ko
	check "without its signature it is refused" unsigned_is_refused
	check "modprobe" modprobe bus1
	check "nothing in the kernel's log" log_is_clean
}

unsigned_is_refused() {
	! insmod /tmp/bus1.ko 2>/tmp/insmod || return
	cat /tmp/insmod
	grep 'Key was rejected by service' /tmp/insmod
}

echo "begin $stage $(uname -r)"
"stage_$stage"
finish
