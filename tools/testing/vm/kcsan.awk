# SPDX-License-Identifier: GPL-2.0-only
#
# Leave out of a kernel's log what KCSAN says of code that is not bus1's: by its
# strict reading there is a data race at every turn of the kernel. A report stands
# between two lines of equal signs. It is ours if a function of the module raced
# itself: stands first in one of the two stacks, functions that are not told apart
# from it by their place left aside (copies, atomics, string functions).

function mine(line) {
	return line ~ /\[bus1\]/
}

function helper(line) {
	return line ~ / (_?_?copy_(to|from)_user|_copy_(to|from)_iter|copy_page_(to|from)_iter|mem(cpy|set|move)|__?raw_copy|_?_?list_|instrument_|kcsan_|__tsan_|rb_|__rb_|refcount_|kref_|_?_?put_user|_?_?get_user|hash_|siphash)[^ ]*\+0x/
}

{ sub(/\r$/, "") }

/={40,}/ {
	if (inside) {
		if (ours)
			printf "%s", report
		inside = 0
	} else {
		inside = 1
		report = ""
		ours = first = 0
	}
	next
}

!inside { print; next }

{ report = report $0 "\n" }

/(read|write|race|assert).* (to|at|by) .*(0x[0-9a-f]+|task|interrupt)/ { first = 1; next }

first && /\+0x[0-9a-f]+\/0x/ {
	if (mine($0))
		ours = 1
	if (mine($0) || !helper($0))
		first = 0
}

END {
	if (inside && ours)
		printf "%s", report
}
