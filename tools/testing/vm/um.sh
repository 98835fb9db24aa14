#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# um.sh NAME IMAGE DIRECTORY SECONDS
#
# What qemu.sh does, with a kernel that is a program of this machine. If it does not
# come to its end, what was in its memory becomes the file BUS1_MEMORY.

. "$(dirname "$0")/lib.sh"

name=${1:?} image=${2:?} dir=${3:?} seconds=${4:?}
kernel=$("$here/kernel.sh" "$name")
release=$(cat "$kernel/release")
traits "$name"
rm -f "$dir/console" "$dir/verdict"

# Its memory is a file that it makes here, and removes at once.
export TMPDIR=/dev/shm
[ -w /dev/shm ] || TMPDIR=$dir

# The file stays as long as somebody has it open.
find_memory() {
	local i pid fd

	for ((i = 0; i < 100; ++i)); do
		pid=$(pgrep -o -P "$1") || true
		for fd in /proc/"${pid:-none}"/fd/*; do
			[[ $(readlink "$fd") == "$TMPDIR"/*" (deleted)" ]] || continue
			echo "$fd"
			return
		done
		sleep 0.1
	done
}

# shellcheck disable=SC2086 # a list
timeout -k 5 "$seconds" "$kernel/boot/vmlinuz-$release" mem="${memory}M" \
	initrd="$image" noreboot con=null con0=null,fd:2 ssl=null ssl1=null,fd:1 ssl2=null,fd:3 \
	ignore_loglevel printk.devkmsg=on panic=-1 oops=panic slab_nomerge \
	$append 3>"$dir/verdict" 2>"$dir/console" </dev/null &
machine=$!
if [ -n "${BUS1_MEMORY:-}" ]; then
	file=$(find_memory "$machine")
	[ -z "$file" ] || exec 4<"$file"
fi
wait "$machine" && status=0 || status=$?
if [ -n "${BUS1_MEMORY:-}" ] && [ -n "$file" ] && ! grep -qsx 'done' "$dir/verdict"; then
	cp --sparse=always /proc/self/fd/4 "$BUS1_MEMORY"
fi
exit "$status"
