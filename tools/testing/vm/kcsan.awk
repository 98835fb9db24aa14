# SPDX-License-Identifier: GPL-2.0-only
#
# Leave out of a kernel's log what KCSAN says of code that is not bus1's: by its
# strict reading there is a data race at every turn of the kernel. A report stands
# between two lines of equal signs. It is ours if a function of the module raced
# itself: stands first in one of the two stacks, functions that are not told apart
# from it by their place left aside (copies, lists, trees, allocators).
#
# The awk of Debian 12 knows no {40,}.

function mine(line) {
	return line ~ /\[bus1\]/
}

function helper(line) {
	return line ~ / (_*copy_(to|from)_user|_copy_(to|from)_iter|copy_page_(to|from)_iter|_*mem(cpy|set|move)|__?raw_copy|_*list_|instrument_|kcsan_|__tsan_|_*rb_|refcount_|kref_|_*put_user|_*get_user|hash_|siphash|xa_|xas_|kfree|kvfree|kmem_cache_free|percpu_counter_|do_swap|sort)[^ ]*\+0x/
}

{ sub(/\r$/, "") }

/========================================/ {
	if (inside) {
		if (ours)
			printf "%s", report
		inside = 0
	} else {
		if (rule)
			print rule
		rule = $0
	}
	next
}

# Others draw such a line, too, and only one.
rule {
	if ($0 ~ /BUG: KCSAN:/) {
		inside = 1
		report = ""
		ours = first = 0
	} else {
		print rule
	}
	rule = ""
}

!inside { print; next }

{ report = report $0 "\n" }

/WARNING:|Oops|Kernel panic|messages dropped/ { print }

/(read|write|race|assert).* (to|at|by) .*(0x[0-9a-f]+|task|interrupt)/ { first = 1; next }

first && /\+0x[0-9a-f]+\/0x/ {
	if (mine($0))
		ours = 1
	if (mine($0) || !helper($0))
		first = 0
}

END {
	if (rule)
		print rule
	if (inside)
		printf "%s", report
}
