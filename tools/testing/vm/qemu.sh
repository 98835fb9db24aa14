#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# qemu.sh NAME IMAGE DIRECTORY SECONDS
#
# Boot a kernel of the table `kernels` with an initramfs, wait until it is off
# again. The second serial port is stdin and stdout here (or BUS1_PORT), the kernel's log
# becomes DIRECTORY/console and the verdict DIRECTORY/verdict.
#
# BUS1_QEMU adds options of QEMU.
#
# BUS1_ACCEL=tcg or =kvm, or else KVM is used where a guest is seen to finish:
# on some hosts there is a /dev/kvm in which guests hang.
#
# The kernels `um` and `um-kasan` need no QEMU: um.sh does the same with them.

. "$(dirname "$0")/lib.sh"

name=${1:?} image=${2:?} dir=${3:?} seconds=${4:?}
[[ $name != um* ]] || exec "$here/um.sh" "$@"
# The emulator has one time stamp counter for all CPUs. Kernel 6.1 distrusts it,
# and falls back to the HPET, which is very slow to read.
tcg=(-accel 'tcg,thread=multi' -cpu max)
# An event that is traced has the names of tasks recorded, too, by patching the scheduler while
# it runs. QEMU has been seen to execute the breakpoint of that after it had gone.
# On a busy host the timer has been seen not to tick in the time that the kernel allows it.
tcg_append="tsc=reliable no_timer_check trace_options=norecord-cmd"
kvm=(-accel kvm -cpu host)
qemu=qemu-system-x86_64 machine=(-machine q35) console=ttyS0

# The other machine has one serial port: the rest are in a PCI slot.
arm64() {
	need qemu-system-arm
	# To sign pointers as the architecture says takes an emulator half of its time.
	tcg=(-accel 'tcg,thread=multi' -cpu 'max,pauth-impdef=on')
	tcg_append="trace_options=norecord-cmd OUTPUT=ttyS0 VERDICT=ttyS1"
	qemu=qemu-system-aarch64 machine=(-machine virt) console=ttyAMA0
	BUS1_ACCEL=tcg
}

boot() {
	local dir=$1 image=$2 seconds=$3 serial output=${port#mon:}

	shift 3
	rm -f "$dir/console" "$dir/verdict"
	serial=(-serial "file:$dir/console" -serial "$port" -serial "file:$dir/verdict")
	if [ "$arch" = arm64 ]; then
		[ "$output" = "$port" ] || output+=",mux=on"
		serial=(-serial "file:$dir/console" -chardev "$output,id=output"
			-chardev "file,id=verdict,path=$dir/verdict"
			-device "pci-serial-2x,chardev1=output,chardev2=verdict")
		[ "$output" = "$port" ] || serial+=(-mon chardev=output)
	fi
	# shellcheck disable=SC2086 # a list
	timeout --foreground -k 5 "$seconds" "$qemu" "${machine[@]}" "$@" \
		-smp 2 -m "$memory" -nodefaults -no-user-config -display none \
		-no-reboot -kernel "$kernel/boot/vmlinuz-$release" \
		-initrd "$image" -append "$append" "${serial[@]}" ${BUS1_QEMU:-}
}

# Is there a KVM that can be used? Found out once per boot of this machine.
probe_kvm() {
	local id answer dir

	[ -w /dev/kvm ] || return 1
	id=$(cat /proc/sys/kernel/random/boot_id)
	answer=$cache/kvm/$id
	if [ ! -s "$answer" ]; then
		mkdir -p "$cache/kvm"
		dir=$(mktemp -d "$work/kvm.XXXXXX")
		say "trying KVM"
		: >"$dir/plan"
		"$here/image.sh" "$name" "$dir/image" "$dir/plan"
		port=null boot "$dir" "$dir/image" 10 "${kvm[@]}" \
			>/dev/null 2>&1 </dev/null || true
		if grep -qsx 'done' "$dir/verdict"; then
			echo yes >"$answer"
		else
			echo no >"$answer"
			say "KVM does not work here, emulating"
		fi
		rm -rf "$dir"
	fi
	[ "$(cat "$answer")" = yes ]
}

traits "$name"
if [ "$arch" = arm64 ]; then arm64; else need qemu-system-x86; fi
kernel=$("$here/kernel.sh" "$name")
release=$(cat "$kernel/release")

# Each object of bus1 has a cache of its own, so that leaks can be counted. Where
# KFENCE samples it finds what is used too late, where it can't the allocator does.
append="console=$console ignore_loglevel printk.devkmsg=on panic=-1 oops=panic \
mitigations=off slab_nomerge $append"

if [ "${BUS1_ACCEL:-}" = kvm ] || { [ -z "${BUS1_ACCEL:-}" ] && probe_kvm; }; then
	accel=("${kvm[@]}")
else
	accel=("${tcg[@]}")
	append+=" $tcg_append"
fi

# Unit tests run when the module is loaded. That takes time: only who asks for
# them shall wait.
append+=" ${BUS1_KUNIT:-kunit.enable=0}"

port=${BUS1_PORT:-stdio}
boot "$dir" "$image" "$seconds" "${accel[@]}"

# The same breakpoint as above has been seen where the kernel patches itself while it boots.
# Before the module is loaded, or a test runs where it is built in, that says nothing about
# it: once more.
if [ "${accel[1]}" != kvm ] && [ ! -s "$dir/verdict" ] &&
	grep -q 'Oops: int3' "$dir/console" && ! grep -qE 'init: (load|run) ' "$dir/console"; then
	say "the emulator has executed a breakpoint that is gone, see $dir/console.int3: again"
	mv "$dir/console" "$dir/console.int3"
	boot "$dir" "$image" "$seconds" "${accel[@]}"
fi
