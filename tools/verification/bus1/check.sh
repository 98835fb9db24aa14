#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# check.sh [full]
#
# Search all states of the models in this directory, and see that the deliberately
# broken ones are found out. "full" adds the searches that take long. A search counts
# only if it was complete. BUS1_RUN is a command to run each search with.
#
# Each line is a case in the style of KTAP; the last one is "N passed, N failed, N
# skipped".

. "$(dirname "$0")/../../testing/vm/lib.sh"

models=$top/tools/verification/bus1
dir=$work/model
memory=${BUS1_MODEL_MEMORY:-6000}
passed=0 failed=0 n=0

mkdir -p "$dir"
lock "$dir/lock"
need spin gcc tcc libc6-dev
say "searching the states of the models"

result() {
	local what=$1 text=$2

	n=$((n + 1))
	if [ "$what" = ok ]; then
		passed=$((passed + 1))
		echo "ok $n $text"
	else
		failed=$((failed + 1))
		echo "not ok $n $text"
	fi
}

# Build and search one model: search MODEL [-DX...]
search() {
	local model=$1

	shift
	rm -rf "$dir/run"
	mkdir "$dir/run"
	cp "$models"/*.pml "$dir/run/"
	cd "$dir/run"
	spin -a "$@" "$model.pml" >spin.log 2>&1 || return 1
	# Optimizing takes longer than most of the searches
	# shellcheck disable=SC2086 # a command with arguments
	${compiler:-tcc} -w -DSAFETY -DCOLLAPSE -DNOFAIR -DVECTORSZ=512 \
		-DMEMLIM="$memory" -o pan pan.c >>spin.log 2>&1 || return 1
	# shellcheck disable=SC2086 # a command with arguments, or nothing
	${BUS1_RUN:-} ./pan -m1000000 -w20 >out 2>&1 || true
}

states() {
	awk '/states, stored/ { print $1 }' out
}

# All states, and no error.
holds() {
	if search "$@" && grep -q 'errors: 0$' out &&
		! grep -qE 'max search depth|not completed|out of memory|reached -M' out &&
		[ -n "$(states)" ]; then
		result ok "$* # $(states) states"
	else
		result bad "$* # see $dir/failed.$n"
		rm -rf "$dir/failed.$((n - 1))" "$dir/failed.$n"
		cp -r "$dir/run" "$dir/failed.$n"
	fi
}

# An assertion fails, after some states: finds PATTERN ARGS...
finds() {
	local pattern=$1

	shift
	if search "$@" && grep -qE "^pan:[0-9]+: ($pattern)" out; then
		result ok "$* # found after $(states) states"
	else
		result bad "$* # not found"
	fi
}

# What is broken on purpose is found.
breaks() {
	finds 'assertion violated|invalid end state' "$@"
}

# What is to be seen can happen: the assertion of REACH fails, and none before.
reaches() {
	finds 'assertion violated +!\((1\)|\(+ends==)' "$@"
}

attack='-DNQ=2 -DNTX=3 -DDEST_0=1 -DDEST_1=2 -DDEST_2=3'
message='-DCAP=1 -DDEST_0=1 -DTO_NODE=1 -DCARRIES=2 -DDEST_1=2'

while read -r kind args; do
	# Words, of which none has a blank or a star in it.
	# shellcheck disable=SC2086
	case $kind in
	'' | '#'*) ;;
	full)
		[ "${1:-}" != full ] || compiler='gcc -O2' $args
		;;
	*)
		"$kind" $args
		;;
	esac
done <<END
# The order of messages: the attack of strangers
holds	order -DCAP=2 $attack
full	holds order -DCAP=3 $attack
reaches	order -DCAP=3 -DREACH $attack
full	holds order -DCAP=3 -DREVERSED $attack
full	holds order -DCAP=1 -DNQ=3 -DNTX=3 -DDEST_0=1 -DDEST_1=2 -DDEST_2=7

# The destruction of a node, messages to it and with it
holds	destroy -DCAP=1 -DDEST_0=1 -DTO_NODE=1 -DCARRIES=0 -DDEST_1=0
holds	destroy -DCAP=1 -DDEST_0=0 -DTO_NODE=0 -DCARRIES=2 -DDEST_1=2
full	holds destroy $message
reaches	destroy $message -DREACH=TOLD
reaches	destroy $message -DREACH=INVALID
reaches	destroy $message -DREACH=DOOMED
holds	twice -DCAP=2
holds	twice -DCAP=2 -DREVERSED
reaches	twice -DCAP=2 -DREACH=FIRST
reaches	twice -DCAP=2 -DREACH=TOO_LATE
holds	flush -DCAP=2
holds	flush -DCAP=2 -DREVERSED
reaches	flush -DCAP=2 -DREACH=RECEIVED
reaches	flush -DCAP=2 -DREACH=DOOMED

# HANDLE_TRANSFER, and a message that carries the same node
holds	transfer -DCAP=1 -DDEST_0=0
holds	transfer -DCAP=1 -DDEST_0=0 -DREVERSED
full	holds transfer -DCAP=1 -DCARRIES=1 -DREVERSED
reaches	transfer -DCAP=1 -DDEST_0=0 -DREACH=TOLD
reaches	transfer -DCAP=1 -DDEST_0=0 -DREACH=NOT_TOLD
reaches	transfer -DCAP=1 -DCARRIES=1 -DREACH=BOTH

# NODE_RELEASE
holds	release -DCAP=3
holds	release -DCAP=3 -DFAILS=1
holds	release -DCAP=3 -DWITH_DESTROY
holds	release -DCAP=3 -DWITH_DESTROY -DREVERSED
holds	release -DCAP=3 -DWITH_DESTROY -DREVERSED -DFAILS=1
reaches	release -DCAP=3 -DREACH=true

# Wake-ups
holds	wakeup
holds	wakeup -DSIGNAL
reaches	wakeup -DREACH=true

# Broken on purpose
breaks	order -DCAP=3 $attack -DV_NO_PUSH
breaks	order -DCAP=3 $attack -DV_SEAL_ENTRY_CLOCK -DV_STAGE_NO_PUSH
breaks	order -DCAP=3 $attack -DV_VISIBLE_EQ
breaks	order -DCAP=3 $attack -DV_FRESH_CLOCK
breaks	order -DCAP=3 $attack -DV_SEAL_STORE
breaks	order -DCAP=2 -DNQ=2 -DNTX=2 -DDEST_0=3 -DDEST_1=3 -DDEST_2=0 -DV_TS_ONLY
breaks	order -DCAP=3 $attack -DV_LAMPORT
breaks	order -DCAP=3 $attack -DV_COARSE
breaks	order -DCAP=3 $attack -DV_SKEWED
breaks	order -DCAP=3 $attack -DV_NO_PASS
breaks	release -DCAP=3 -DWITH_DESTROY -DREVERSED -DV_STALE_NO_DEATH
breaks	release -DCAP=3 -DV_STALE_NO_REFS -DV_NOT_TAKEN_BACK
breaks	wakeup -DV_WAKE_FIRST
breaks	wakeup -DV_LOOK_FIRST
full	breaks transfer -DCAP=1 -DV_JOIN_UNLOCKED
breaks	transfer -DCAP=1 -DDEST_0=0 -DV_TRANSFER_JOIN_FIRST
breaks	transfer -DCAP=1 -DDEST_0=0 -DV_JOIN_SEALED_DEAD
END

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
