#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# demo.sh [NAME]
#
# Boot a kernel of the table `kernels`, load the module, run samples/bus1/demo there as
# root, or what SAMPLE names of samples/bus1, and return its exit status.

. "$(dirname "$0")/lib.sh"

name=${1:-6.12}
traits "$name"
[ "$arch" = amd64 ] || die "the samples are programs of this machine, not of $arch"
dir=$work/demo
mkdir -p "$dir/modules"

cp "$("$here/module.sh" "$name")" "$dir/modules/"
sample=${SAMPLE:-demo}
samples=$("$here/samples.sh")
[[ $sample =~ ^[a-z]+$ && -x $samples/$sample ]] || die "no sample '$sample', these are known:" \
	"$(find "$samples" -maxdepth 1 -type f -perm -u+x -printf '%f\n' | sort | xargs)"
printf '%s\n' "load /modules/bus1.ko" "demo 600 /demo/$sample" finish >"$dir/plan"
"$here/image.sh" "$name" "$dir/image" "$dir/plan" "$dir/modules=modules" "$samples=demo"

say "booting $(cat "$("$here/kernel.sh" "$name")/release")"
"$here/qemu.sh" "$name" "$dir/image" "$dir" 900 </dev/null || true

if ! grep -qsx 'step load ok' "$dir/verdict"; then
	die "the module was not loaded, see $dir/console"
fi
if grep -qE -f <(list log-failures) "$dir/console" ||
	grep -qE '^step [a-z-]+ fail' "$dir/verdict" ||
	[ "$(tail -n 1 "$dir/verdict")" != 'done' ]; then
	grep -E '^step [a-z-]+ fail' "$dir/verdict" >&2 || true
	die "something went wrong, see $dir/console"
fi
read -r _ _ how status < <(grep '^demo ' "$dir/verdict")
[ "$how" = 'exit' ] || die "the demo ended by $how $status"
exit "$status"
