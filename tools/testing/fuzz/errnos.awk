# SPDX-License-Identifier: GPL-2.0-only
#
# The errnos that bus1(7) lists, as arrays of C: one for each command, and one for
# what every command can return. What the kernel answers is held against these.
#
# Usage: awk -f errnos.awk Documentation/bus1/bus1.7.rst

function flush() {
	if (section != "" && list != "")
		printf "static const int errnos_%s[] = { %s0 };\n", section, list
	list = ""
}

BEGIN { print "/* SPDX-License-Identifier: GPL-2.0-only */" }

/^(=+|-+)$/ && previous ~ /^[A-Za-z]/ {
	flush()
	section = ""
	if (previous == "COMMANDS")
		section = "common"
	else if (previous ~ /^BUS1_CMD_/ || previous == "mmap")
		section = previous
}
/^``E[A-Z0-9]+``$/ { list = list substr($0, 3, length($0) - 4) ", " }
{ previous = $0 }

END { flush() }
