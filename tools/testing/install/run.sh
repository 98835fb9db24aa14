#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run.sh [plain | secure] [STAGE]
# run.sh docs
#
# Install bus1 on a whole Debian system in a virtual machine, as README.md says.
# plain: install the package, test, upgrade it, update the kernel, reboot, remove.
# secure: install it with Secure Boot, see it refused, enroll the key of DKMS.
# STAGE: begin with that one, on the disk that the one before has left in a run before.
# The log of it is kept, its path is printed. The last line is
# "N passed, N failed, N skipped".
# docs: what the newcomer has seen in the last run, into the tutorial; what was found in
# each boot, into installed.txt.

. "$(dirname "$0")/../vm/lib.sh"

self=$top/tools/testing/install
programs=(peer node handle transfer send send_data send_multi recv poll pool release
	disconnect seed badinput files)
ovmf=/usr/share/OVMF
dir=$work/install
password=bus1-mok
# A machine that hangs is killed after so many seconds.
deadline=${BUS1_TIMEOUT:-7200}

passed=0 failed=0 skipped=0

result() {
	if [ "$1" = ok ]; then
		passed=$((passed + 1))
		printf '  %-64s ok\n' "$2"
	elif [ "$1" = skip ]; then
		skipped=$((skipped + 1))
		printf '  %-64s skipped\n' "$2"
	else
		failed=$((failed + 1))
		printf '  %-64s FAILED\n' "$2"
	fi
}

# The disk with what the system needs for a stage.
make_proof() {
	echo "$1" >"$dir/proof/stage"
	rm -f "$dir/proof.img"
	truncate -s 256M "$dir/proof.img"
	mke2fs -q -t ext4 -E root_owner=0:0 -O ^has_journal -L proof -d "$dir/proof" "$dir/proof.img"
}

# qemu NAME OPTION...: until the machine reboots
qemu() {
	local name=$1 firmware=(-machine q35) cpus=2

	shift
	# Function tracing patches functions while another CPU executes them, which has been
	# seen to end in an int3 that nobody knows where CPUs are emulated.
	[ "$name" != recipes ] || cpus=1
	case $lane in
	plain)
		firmware+=(-drive "if=pflash,unit=0,format=raw,readonly=on,file=$ovmf/OVMF_CODE_4M.fd")
		;;
	secure)
		firmware=(-machine 'q35,smm=on'
			-global 'driver=cfi.pflash01,property=secure,value=on'
			-drive "if=pflash,unit=0,format=raw,readonly=on,file=$ovmf/OVMF_CODE_4M.secboot.fd")
		;;
	esac
	timeout --foreground -k 5 "$deadline" qemu-system-x86_64 "${firmware[@]}" \
		-drive "if=pflash,unit=1,format=raw,file=$dir/$name.vars" \
		-global ICH9-LPC.disable_s3=1 \
		"${accel[@]}" -smp "$cpus" -m 2048 -nodefaults -no-user-config -display none \
		-no-reboot -device virtio-rng-pci \
		-drive "if=virtio,format=qcow2,cache=unsafe,file=$dir/$name.disk" \
		-drive "if=virtio,format=raw,readonly=on,file=$dir/proof.img" "$@" </dev/null
}

# disk STAGE [BEFORE]: begin with what the stage BEFORE has left, or with a system that
# was just installed.
disk() {
	local stage=$1 before=${2:-} from=$system/disk vars

	vars=$ovmf/OVMF_VARS_4M.fd
	[ "$lane" = plain ] || vars=$ovmf/OVMF_VARS_4M.ms.fd
	if [ -n "$before" ]; then
		from=$dir/$before.disk vars=$dir/$before.vars
	fi
	[ -s "$from" ] || die "stage '$before' has left nothing to begin with"
	rm -f "$dir/$stage".{disk,vars}
	qemu-img create -q -f qcow2 -F qcow2 -b "$from" "$dir/$stage.disk"
	cp "$vars" "$dir/$stage.vars"
}

# boot STAGE: let the system do its part, and count what it found.
boot() {
	local stage=$1 line kind name begun=$failed

	say "booting, stage '$stage'"
	make_proof "$stage"
	rm -f "$dir/$stage".console
	: >"$dir/$stage.output"
	qemu "$stage" -serial "file:$dir/$stage.console" -serial "file:$dir/$stage.output" \
		>"$dir/$stage.qemu" 2>&1 || true
	sed -i 's/\r$//' "$dir/$stage.output"
	cat "$dir/$stage.output" >>"$dir/$lane.log"
	while IFS= read -r line; do
		case $line in
		'ok '* | 'not ok '* | 'skip '*)
			kind=${line%%ok *}ok
			[ "${line%% *}" != skip ] || kind=skip
			name=${line#"$kind "}
			result "$kind" "$stage: $name"
			;;
		esac
	done <"$dir/$stage.output"
	[ "$(tail -n 1 "$dir/$stage.output")" = 'end' ] || result "not ok" "$stage: came to its end"
	# What is wrong here makes everything after it wrong, too.
	[ "$failed" = "$begun" ] || {
		grep -A 30 '^not ok' "$dir/$stage.output" || true
		return 1
	}
}

# What a person does at the blue screen.
enroll() {
	local status=0

	say "booting, MokManager"
	rm -f "$dir/mok.socket"
	qemu mok -chardev "socket,id=console,path=$dir/mok.socket,server=on,wait=off" \
		-serial chardev:console 2>"$dir/mok.qemu" &
	"$self/mok-manager" "$dir/mok.socket" "$password" 900 >"$dir/mok.console" 2>&1 ||
		status=$?
	[ "$status" = 0 ] || kill %% 2>/dev/null || true
	wait %% 2>/dev/null || true
	result "$([ "$status" = 0 ] && echo ok || echo 'not ok')" "MokManager: the key is enrolled"
	return "$status"
}

# run LANE [STAGE]: STAGE:BEFORE is one that begins where BEFORE has ended. Nothing
# follows one that has failed, but for those that do not build on it.
run() {
	local begin=${2:-} stage before stages=() bad=()

	lane=$1
	case $lane in
	plain) stages=(first recipes:first upgrade:first second:upgrade) ;;
	secure) stages=(secure enforced:secure mok:enforced enrolled:mok) ;;
	esac
	if [ -n "$begin" ] && [ -e "$dir/$lane.log" ]; then
		sed -i "/^begin $begin /,\$d" "$dir/$lane.log"
	else
		: >"$dir/$lane.log"
	fi
	for stage in "${stages[@]}"; do
		before=
		[ "$stage" = "${stage#*:}" ] || before=${stage#*:}
		stage=${stage%%:*}
		[ "${begin:-$stage}" = "$stage" ] || continue
		begin=
		if [[ " ${bad[*]} " = *" ${before:-none} "* ]]; then
			bad+=("$stage")
			continue
		fi
		disk "$stage" "$before"
		if [ "$stage" = mok ]; then
			enroll || bad+=("$stage")
		else
			boot "$stage" || bad+=("$stage")
		fi
	done
	[ -z "$begin" ] || die "there is no stage '$begin', but ${stages[*]%:*}"
}

# The commands of a page, from one headline to another, each in a file of its own that
# begins with what the page says about it.
commands_of() {
	awk -v out="$4" -v begin="$2" -v end="$3" '
		$0 == end { inside = 0 }
		$0 == begin { inside = 1 }
		!inside { next }
		/^    / && wanted {
			if (!file) {
				file = sprintf("%s%02d", out, ++n)
				print "# " text >file
			}
			print substr($0, 5) >file
			next
		}
		/^$/ { if (file) { close(file); file = ""; wanted = 0 } if (!wanted) text = ""; next }
		{ text = text (text ? " " : "") $0; wanted = /::$/ }' "$top/Documentation/bus1/$1"
}

case ${1:-} in
docs)
	[ -s "$dir/plain.log" ] || die "first: make check-install T=plain"
	"$self/transcript" "$dir/plain.log" "$top/Documentation/bus1/tutorial.rst" \
		"$top/Documentation/bus1/greet.svg" "$top/Documentation/bus1/installed.txt"
	exit
	;;
plain | secure | '') ;;
*) die "there is 'plain' and 'secure', and no '$1'" ;;
esac

need qemu-system-x86 qemu-utils ovmf e2fsprogs python3-minimal
mkdir -p "$dir"
lock "$dir"
system=$("$self/image.sh")
tests=$("$here/selftests.sh" "${programs[@]/#/test_}")
rm -rf "$dir/proof"
mkdir -p "$dir"/proof/{debs/old,debs/new,tests,source}
old=$("$top/tools/version")
"$here/deb.sh" "$dir/proof/debs/old" >/dev/null
"$here/deb.sh" -v "${old%.*}.$((${old##*.} + 1))" "$dir/proof/debs/new" >/dev/null
cp "${programs[@]/#/$tests/native/test_}" "$dir/proof/tests/"
(cd "$top" && cp -r --parents Makefile Kbuild dkms.conf include ipc tools/version \
	tools/testing/bench "$dir/proof/source/")
mkdir "$dir/proof/recipes"
commands_of tracing.rst 'One line each' 'Denying' "$dir/proof/recipes/tracing-"
commands_of performance.rst 'On a real machine' - "$dir/proof/recipes/performance-"
cp "$self/guest.sh" "$dir/proof/"
echo "$password" >"$dir/proof/password"
list log-failures >"$dir/proof/patterns"
chmod -R go+rX "$dir/proof"

accel=(-accel 'tcg,thread=multi' -cpu max)
for lane in ${1:-plain secure}; do
	run "$lane" "${2:-}"
done
say "the log is $dir/$lane.log, the kernel's are beside it"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
