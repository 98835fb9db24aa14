# SPDX-License-Identifier: GPL-2.0-only
#
# Read what the tests of a machine print, "@begin NAME" and "@end NAME exit 0"
# around each, with "@took NAME MILLISECONDS" before the end. Print a line for each
# program, and for each case that failed with what was said about it. At last, write
# the sums to the file `sums`: on the first line those of all, and then of each
# directory that programs are in.
#
# A program fails that is killed, runs out of time, plans other cases than it
# runs, or runs none; that is one failure more. A case that is skipped fails, too,
# unless the file `skips` has it for this `kernel`, or for the directory of the program;
# without `skips` all may be.

BEGIN {
	while (skips && (getline <skips) > 0)
		if (!/^#/ && NF > 1)
			may_skip[$2] = "^(" $1 ")$"
}

function expected(test, pattern) {
	for (pattern in may_skip)
		if (test ~ "^(" pattern ")$" &&
		    (kernel ~ may_skip[pattern] || directory ~ may_skip[pattern]))
			return 1
	return !skips
}

function bad(why) {
	++failed
	problem = problem "    " prefix name ": " why "\n"
}

function close_program(how) {
	if (!planned && !ran)
		bad("ran no test (" how ")")
	else if (ran != plan)
		bad("planned " plan + 0 " tests and ran " ran ", " how)
	else if (how !~ /^exit [04]$/ && !(how ~ /^exit 1$/ && failed))
		bad(how)
	printf "  %-36s %4d passed", prefix name, passed
	if (failed)
		printf ", %d FAILED", failed
	if (skipped)
		printf ", %d skipped", skipped
	if (took >= 1000)
		printf " (%d s)", took / 1000
	printf "\n%s", problem
	fflush()
	directories[directory]
	passed_in[directory] += passed
	failed_in[directory] += failed
	skipped_in[directory] += skipped
	all_passed += passed
	all_failed += failed
	all_skipped += skipped
	name = ""
}

function open_program(n) {
	name = directory = n
	sub(/\/.*/, "", directory)
	plan = planned = ran = passed = failed = skipped = took = 0
	problem = said = ""
}

{ sub(/\r$/, "") }

/^@begin / {
	if (name)
		close_program("the machine stopped")
	open_program($2)
	next
}

/^@took / && $2 == name {
	took = $3
	next
}

/^@end / && $2 == name {
	sub(/^@end [^ ]+ /, "")
	close_program($0)
	next
}

!name {
	print
	next
}

verbose { print "    " $0 }

/^1\.\.[0-9]+/ {
	plan = substr($1, 4) + 0
	planned = plan > 0
	next
}

/^(not )?ok [0-9]+/ {
	++ran
	number = ($1 == "not" ? $3 : $2) + 0
	if (number != ran)
		bad("result " number " where " ran " was due")
	if (/# *SKIP/) {
		test = name "." $0
		sub(/ *# *SKIP.*/, "", test)
		sub(/^.*\//, "", test)
		sub(/\.ok [0-9]+ (- )?/, ".", test)
		if (expected(test))
			++skipped
		else
			bad($0 " (not in the file `skips`)")
	} else if ($1 == "ok")
		++passed
	else {
		++failed
		problem = problem (verbose ? "" : said) "    " $0 "\n"
	}
	said = ""
	next
}

/^# *RUN / {
	said = ""
	next
}

{ said = said "    " $0 "\n" }

END {
	if (name)
		close_program("the machine stopped")
	print all_passed + 0, all_failed + 0, all_skipped + 0 >sums
	for (directory in directories)
		print directory, passed_in[directory], failed_in[directory],
		      skipped_in[directory] >sums
}
