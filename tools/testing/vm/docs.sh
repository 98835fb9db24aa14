#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# docs.sh [DIRECTORY]
#
# Build the documentation, as manual pages and as HTML. It goes to DIRECTORY, or else to
# build/docs in the tree. Print the page to begin with.

. "$(dirname "$0")/lib.sh"

out=${1:-$top/build/docs}

need make python3-docutils graphviz
mkdir -p "$out"
say "building the documentation"
make -s -C "$top/Documentation/bus1" OUTPUT="$(realpath "$out")" docs >"$work/docs.log" 2>&1 || {
	cat "$work/docs.log" >&2
	die "the documentation does not build"
}
echo "$out/index.html"
