// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin of QEMU that counts how often each instruction is executed.
 *
 * It counts between two instructions that do nothing: nopl 0x62310001(%rax) and
 * nopl 0x62310002(%rax). At nopl 0x62310003(%rax) it writes what it has counted to
 * the file OUT.N, and starts anew with the next N, from 1: how often it has counted,
 * by what more a result is divided (which the program knows, and says by how often it
 * executes nopl 0x62310004(%rax)), and on each further line an address and a count.
 *
 *	-plugin profile.so,out=OUT
 *
 * For machines with one CPU.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugin.h"

#define SLOTS_MAX	(1U << 22)	/* a power of two */

/* By address, open hashing. QEMU adds to the counts by itself. */
static uint64_t address[SLOTS_MAX];
static uint64_t count[SLOTS_MAX], before[SLOTS_MAX], sum[SLOTS_MAX];
static uint32_t used[SLOTS_MAX];
static unsigned int n_used, n_files, n_ops, n_parts;
static const char *out;

static uint32_t slot_of(uint64_t vaddr)
{
	uint32_t i = vaddr * 0x9e3779b97f4a7c15ULL >> 42;

	while (address[i] && address[i] != vaddr)
		i = (i + 1) % SLOTS_MAX;
	if (!address[i]) {
		if (n_used > SLOTS_MAX / 4 * 3)
			abort();
		address[i] = vaddr;
		used[n_used++] = i;
	}
	return i;
}

static void begin(unsigned int vcpu, void *data)
{
	unsigned int i;

	(void)vcpu;
	(void)data;
	for (i = 0; i < n_used; ++i)
		before[used[i]] = count[used[i]];
}

static void end(unsigned int vcpu, void *data)
{
	unsigned int i;

	(void)vcpu;
	(void)data;
	for (i = 0; i < n_used; ++i)
		sum[used[i]] += count[used[i]] - before[used[i]];
	++n_ops;
}

static void part(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	++n_parts;
}

static void write_out(unsigned int vcpu, void *data)
{
	char path[4096];
	unsigned int i;
	FILE *f;

	(void)vcpu;
	(void)data;
	snprintf(path, sizeof(path), "%s.%u", out, ++n_files);
	f = fopen(path, "w");
	if (!f)
		abort();
	fprintf(f, "operations %u\nparts %u\n", n_ops, n_parts);
	n_ops = 0;
	n_parts = 0;
	for (i = 0; i < n_used; ++i) {
		if (sum[used[i]])
			fprintf(f, "%016" PRIx64 " %" PRIu64 "\n", address[used[i]],
				sum[used[i]]);
		sum[used[i]] = 0;
	}
	if (fclose(f))
		abort();
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	static void (*const marks[])(unsigned int vcpu, void *data) = {
		NULL, begin, end, write_out, part,
	};
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *insn;
	unsigned int mark;

	(void)id;
	for (i = 0; i < n; ++i) {
		insn = qemu_plugin_tb_get_insn(tb, i);
		mark = plugin_mark(insn);
		if (mark && mark < sizeof(marks) / sizeof(*marks)) {
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marks[mark],
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
			continue;
		}
		qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
				&count[slot_of(qemu_plugin_insn_vaddr(insn))], 1);
	}
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
			char **argv)
{
	(void)info;
	out = plugin_out(argc, argv);
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
