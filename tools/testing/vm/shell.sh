#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# shell.sh [NAME]
#
# A shell on a kernel of the table `kernels`, with the module loaded, the tests
# in /tests and the samples in /samples.

. "$(dirname "$0")/lib.sh"

name=${1:-6.12}
dir=$work/shell
mkdir -p "$dir/modules"

pairs=("$dir/modules=modules")
cp "$("$here/module.sh" "$name")" "$dir/modules/"
traits "$name"
if tests=$("$here/selftests.sh" -a "$abis"); then pairs+=("$tests=tests"); fi
# The samples are programs of this machine.
if [ "$arch" = amd64 ] && samples=$("$here/samples.sh"); then
	pairs+=("$samples=samples")
fi
printf '%s\n' "load /modules/bus1.ko" shell >"$dir/plan"
"$here/image.sh" "$name" "$dir/image" "$dir/plan" "${pairs[@]}"

say "booting, the kernel's log is in $dir/console; 'exit' turns it off, and" \
	"so does Ctrl-A X"
if [ -t 0 ]; then
	saved=$(stty -g)
	trap 'stty "$saved"' EXIT
fi
BUS1_PORT=mon:stdio "$here/qemu.sh" "$name" "$dir/image" "$dir" 86400
