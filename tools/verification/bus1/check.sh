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
# skipped". What full adds is built by gcc, and has a larger hash table.

. "$(dirname "$0")/../../testing/vm/lib.sh"

models=$top/tools/verification/bus1
dir=$work/model
memory=${BUS1_MODEL_MEMORY:-4000}
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
	${BUS1_RUN:-} ./pan -m1000000 "-w${hash:-20}" >out 2>&1 || true
}

states() {
	awk '/states, stored/ { print $1 }' out
}

# What it took: time, and memory with all tables
effort() {
	awk '/total actual memory usage/ { m = $1 }
		/elapsed time/ { t = $4 }
		END { printf "%d MB, %d s", m, t }' out
}

# All states, and no error.
holds() {
	if search "$@" && grep -q 'errors: 0$' out &&
		! grep -qE 'max search depth|not completed|out of memory|reached -M' out &&
		[ -n "$(states)" ]; then
		result ok "$* # $(states) states, $(effort)"
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
	finds 'assertion violated +!\(((1|waited|told|given)\)|\(+ends==)' "$@"
}

attack='-DNQ=2 -DNTX=3 -DDEST_0=1 -DDEST_1=2 -DDEST_2=3'
three='-DNQ=3 -DNTX=3 -DDEST_0=7 -DDEST_1=7 -DDEST_2=7'
to_node='-DDEST_0=1 -DTO_NODE=1 -DCARRIES=0 -DDEST_1=0'
carries='-DDEST_0=0 -DTO_NODE=0 -DCARRIES=2 -DDEST_1=2'
message='-DDEST_0=1 -DTO_NODE=1 -DCARRIES=2 -DDEST_1=2'
stale='-DDEST_0=3 -DTO_NODE=0 -DCARRIES=0 -DHOLDS=1 -DWITH_RELEASE'
alone='-DNQ=1 -DNK=3 -DDEST_0=1 -DTO_NODE=1 -DDEST_1=1 -DCARRIES=2 -DRELEASE=true -DFAILS=1'
to_owner='-DTO_PEER=0 -DRELEASE=true'
polls='-DHOLDS=1 -DWITH_RELEASE -DWITH_POLL=1'

while read -r kind args; do
	# Words, of which none has a blank or a star in it.
	# shellcheck disable=SC2086
	case $kind in
	'' | '#'*) ;;
	full)
		[ "${1:-}" != full ] || compiler='gcc -O2' hash=24 $args
		;;
	*)
		"$kind" $args
		;;
	esac
done <<END
# The order of messages: the attack of strangers, and multicasts to all
holds	order -DCAP=2 $attack
full	holds order -DCAP=2 -DFAILS=1 $attack
full	holds order -DCAP=3 -DREVERSED $attack
full	holds order -DCAP=1 -DNQ=3 -DNTX=3 -DDEST_0=1 -DDEST_1=2 -DDEST_2=7
full	holds order -DCAP=1 -DLATE -DNO_WANT $three
reaches	order -DCAP=3 -DREACH $attack

# The destruction of a node, messages to it and with it, and what a failed RECV undoes
holds	destroy -DCAP=1 $to_node
holds	destroy -DCAP=1 -DREVERSED $to_node
holds	destroy -DCAP=1 $carries
holds	destroy -DCAP=1 $alone
full	holds destroy -DCAP=1 -DREVERSED $alone
holds	destroy -DCAP=1 -DFAILS=1 $carries
holds	destroy -DCAP=1 -DREVERSED $carries
full	holds destroy -DCAP=1 $message
full	holds destroy -DCAP=1 $stale -DDEST_1=0
holds	destroy -DCAP=1 $carries $polls
full	holds destroy -DCAP=1 $alone -DWITH_POLL=0
reaches	destroy -DCAP=1 $message -DREACH=TOLD
reaches	destroy -DCAP=1 $message -DREACH=INVALID
reaches	destroy -DCAP=1 $message -DREACH=DOOMED
reaches	destroy -DCAP=1 -DFAILS=1 $carries -DREACH=UNDONE
reaches	destroy -DCAP=1 $alone -DREACH=ANOTHER
reaches	destroy -DCAP=1 $carries $polls -DREACH=ANEW
holds	twice -DCAP=2
holds	twice -DCAP=2 -DREVERSED
reaches	twice -DCAP=2 -DREACH=FIRST
reaches	twice -DCAP=2 -DREACH=TOO_LATE

# FLUSH, alone, with a seed, and beside a destruction by the peer or another one, or
# a birth
holds	flush -DCAP=2
holds	flush -DCAP=2 -DREVERSED
holds	flush -DCAP=2 -DTO_NODE=0
holds	flush -DCAP=1 -DDESTROY
holds	flush -DCAP=1 -DDESTROY -DWITH_POLL=0
holds	flushes -DCAP=1 -DHOLDS=0
full	holds flushes -DCAP=2 -DHOLDS=0 -DREVERSED
full	holds flushes -DCAP=1 -DTRANSFER
full	holds flushes -DCAP=1 -DTRANSFER -DREVERSED
full	holds flushes -DCAP=1 -DTRANSFER -DWITH_POLL=0
holds	birth -DCAP=2
holds	birth -DCAP=2 -DREVERSED
reaches	flush -DCAP=2 -DREACH=RECEIVED
reaches	flush -DCAP=2 -DREACH=DOOMED
reaches	flush -DCAP=1 -DDESTROY -DREACH=NOT_MINE
reaches	flushes -DCAP=1 -DTRANSFER -DREACH=AFTER
reaches	birth -DCAP=2 -DREACH=RECEIVED
reaches	birth -DCAP=2 -DREACH=DOOMED
reaches	birth -DCAP=2 -DREACH=LATE_BORN

# HANDLE_TRANSFER, alone, with a message that carries the same node, with
# HANDLE_RELEASE, with both and poll(), and to the owner
holds	transfer -DCAP=1 -DDEST_0=0
holds	transfer -DCAP=1 -DDEST_0=0 -DREVERSED
holds	transfer -DCAP=1 -DDEST_0=0 $to_owner
holds	transfer -DCAP=1 -DDEST_0=1 -DTO_NODE=1 $to_owner
holds	transfer -DCAP=1 -DDEST_0=0 -DHOLDS=1
full	holds transfer -DCAP=1 -DDEST_0=0 -DHOLDS=1 -DNK=3 -DWITH_RELEASE
full	holds transfer -DCAP=1 -DCARRIES=1 -DREVERSED
full	holds transfer -DCAP=1 -DCARRIES=1 -DNK=3 $polls
reaches	transfer -DCAP=1 -DDEST_0=0 -DREACH=TOLD
reaches	transfer -DCAP=1 -DDEST_0=0 -DREACH=NOT_TOLD
reaches	transfer -DCAP=1 -DCARRIES=1 -DREACH=BOTH
reaches	transfer -DCAP=1 -DDEST_0=0 $to_owner -DREACH=AGAIN
reaches	transfer -DCAP=1 -DDEST_0=1 -DTO_NODE=1 $to_owner -DREACH=GONE
full	reaches transfer -DCAP=1 -DDEST_0=0 -DHOLDS=1 -DNK=3 -DWITH_RELEASE -DREACH=GIVEN_BACK
full	reaches transfer -DCAP=1 -DCARRIES=1 -DFAILS=1 -DNK=3 -DREACH=UNDONE
full	reaches transfer -DCAP=1 -DCARRIES=1 -DNK=3 $polls -DREACH=ANEW

# NODE_RELEASE
holds	release -DCAP=3
holds	release -DCAP=3 -DFAILS=1
holds	release -DCAP=3 -DWITH_DESTROY
holds	release -DCAP=2 -DWITH_DESTROY -DREVERSED
holds	release -DCAP=2 -DWITH_DESTROY -DREVERSED -DFAILS=1
full	holds release -DCAP=3 -DWITH_DESTROY -DREVERSED -DFAILS=1
holds	release -DCAP=3 -DWITH_SEND
holds	release -DCAP=3 -DWITH_SEND -DREVERSED -DFAILS=1
reaches	release -DCAP=3 -DREACH=true
reaches	release -DCAP=3 -DWITH_SEND -DREACH=told
reaches	release -DCAP=3 -DREACH=waited

# Wake-ups. One is handed on without need: after a signal in bus1_ioctl_recv_wait().
holds	wakeup
holds	wakeup -DSIGNAL
holds	wakeup -DCAP=2 -DNT=3 -DSIGNAL
holds	wakeup -DCAP=2 -DNT=3 -DSIGNAL -DV_NO_HAND_WAIT
reaches	wakeup -DREACH=true
reaches	wakeup -DCAP=2 -DNT=3 -DSIGNAL -DREACH=given

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
breaks	destroy -DCAP=1 $stale -DDEST_1=3 -DV_PUSH_FIRST
breaks	destroy -DCAP=1 $carries $polls -DV_NO_AGAIN
breaks	birth -DCAP=1 -DV_BIRTH_FREE
breaks	birth -DCAP=1 -DV_BIRTH_NO_PASS
breaks	flush -DCAP=2 -DTO_NODE=0 -DV_FLUSH_NO_PUSH
full	breaks flushes -DCAP=1 -DTRANSFER -DREVERSED -DV_FLUSH_NO_FLOOR
breaks	release -DCAP=3 -DWITH_DESTROY -DREVERSED -DV_STALE_NO_DEATH
breaks	release -DCAP=3 -DV_STALE_NO_REFS -DV_NOT_TAKEN_BACK
breaks	release -DCAP=2 -DWITH_DESTROY -DREVERSED -DV_AGAIN_LATE
breaks	release -DCAP=2 -DWITH_DESTROY -DREVERSED -DV_AGAIN_NO_PASS
breaks	release -DCAP=3 -DWITH_SEND -DV_SEND_KEEPS
breaks	wakeup -DV_WAKE_FIRST
breaks	wakeup -DV_LOOK_FIRST
breaks	wakeup -DCAP=2 -DNT=3 -DV_NO_HAND_BACK
breaks	wakeup -DCAP=2 -DNT=3 -DSIGNAL -DV_NO_HAND_MUTEX
breaks	transfer -DCAP=1 -DV_JOIN_UNLOCKED
full	breaks transfer -DCAP=2 -DCARRIES=1 -DREVERSED -DV_JOIN_NO_PUSH
breaks	transfer -DCAP=1 -DDEST_0=0 -DV_TRANSFER_JOIN_FIRST
breaks	transfer -DCAP=1 -DDEST_0=0 -DHOLDS=1 -DWITH_RELEASE -DV_LIVE_EARLY
breaks	transfer -DCAP=1 -DDEST_0=0 -DHOLDS=1 -DV_TWICE
full	breaks transfer -DCAP=1 -DCARRIES=1 -DNK=3 $polls -DV_NO_AGAIN
breaks	transfer -DCAP=1 -DDEST_0=1 -DTO_NODE=1 $to_owner -DV_GONE_AT_EXPIRE
breaks	transfer -DCAP=1 -DDEST_0=1 -DTO_NODE=1 $to_owner -DV_GONE_AT_DROP
breaks	transfer -DCAP=1 -DDEST_0=0 -DV_JOIN_KEPT
END

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
