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
need spin gcc libc6-dev
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
	gcc -O2 -w -DSAFETY -DCOLLAPSE -DNOFAIR -DVECTORSZ=512 \
		-DMEMLIM="$memory" -o pan pan.c >>spin.log 2>&1 || return 1
	# shellcheck disable=SC2086 # a command with arguments, or nothing
	${BUS1_RUN:-} ./pan -m1000000 -w22 >out 2>&1 || true
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

# An assertion fails, after some states.
breaks() {
	if search "$@" && grep -qE '^pan:[0-9]+: (assertion violated|invalid end state)' out; then
		result ok "$* # found after $(states) states"
	else
		result bad "$* # not found"
	fi
}

attack='-DNQ=2 -DNTX=3 -DDEST_0=1 -DDEST_1=2 -DDEST_2=3'
message='-DCAP=1 -DDEST_0=1 -DTO_NODE=1 -DCARRIES=2 -DDEST_1=2'

while read -r kind args; do
	# Words, of which none has a blank or a star in it.
	# shellcheck disable=SC2086
	case $kind in
	'' | '#'*) ;;
	full)
		[ "${1:-}" != full ] || holds $args
		;;
	*)
		"$kind" $args
		;;
	esac
done <<END
# The order of messages: the attack of strangers
holds	order -DCAP=3 $attack
holds	order -DCAP=3 -DREVERSED $attack
breaks	order -DCAP=3 -DREACH $attack
full	order -DCAP=3 -DNQ=2 -DNTX=3 -DDEST_0=3 -DDEST_1=3 -DDEST_2=3
full	order -DCAP=3 -DNQ=3 -DNTX=3 -DDEST_0=3 -DDEST_1=6 -DDEST_2=5
full	order -DCAP=3 -DFAILS=1 $attack

# The destruction of a node, and messages to it and with it
holds	destroy $message
full	destroy -DREVERSED $message
full	destroy -DHOLDS=1 $message
full	destroy -DRELEASE=true $message
full	destroy -DFAILS=1 $message
holds	twice -DCAP=2
holds	twice -DCAP=2 -DREVERSED
holds	flush -DCAP=2
holds	flush -DCAP=2 -DREVERSED
full	flush -DCAP=2 -DDESTROY

# NODE_RELEASE
holds	release -DCAP=3
holds	release -DCAP=3 -DFAILS=1
holds	release -DCAP=3 -DWITH_DESTROY
holds	release -DCAP=3 -DWITH_DESTROY -DREVERSED
holds	release -DCAP=3 -DWITH_DESTROY -DREVERSED -DFAILS=1
breaks	release -DCAP=3 -DREACH=true

# Wake-ups
holds	wakeup
holds	wakeup -DSIGNAL
breaks	wakeup -DREACH=true

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
END

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
