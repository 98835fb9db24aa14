#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# symbols.sh
#
# In the machine: print the symbols of the running kernel and its modules, packed, so
# that they get through a serial port. Only their order is of interest, and where
# code begins.

echo @symbols
grep -iE '^[0-9a-f]+ [tw] ' /proc/kallsyms | gzip -9 | base64
echo @end
