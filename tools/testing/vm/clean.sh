#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# clean.sh [all]
#
# Remove what was built for this tree, or everything that was downloaded, too.

. "$(dirname "$0")/lib.sh"

rm -rf "${work:?}"
[ "${1:-}" = all ] || exit 0
rm -rf "${cache:?}"/{apt,busybox,kernel,kernel-source,kvm,source,system,work,tmp.*}
# What is in there may be of root.
[ ! -e "$cache/roots" ] || as_root rm -rf "${cache:?}/roots"
