// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin of QEMU that finds what two CPUs both write.
 *
 * Each CPU is watched between nopl 0x62310001(%rax) and nopl 0x62310002(%rax): that is
 * one operation. At nopl 0x62310003(%rax) it writes to the file OUT.N, N from 1, what was
 * seen: a line "operations A B", with how many there were on either CPU, and for each line of
 * the cache that was written by the kernel on both: its address, in how many operations by
 * the one and by the other, and the instructions that did (a few of them).
 *
 *	-plugin shared.so,out=OUT
 *
 * Addresses are virtual ones, of the kernel alone: these are the same on all CPUs.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define CPUS		2
#define LINE_SHIFT	6
#define SLOTS_MAX	(1U << 18)	/* a power of two */
#define WRITERS		6

struct line {
	uint64_t address;
	unsigned int n_ops, last_op;
	uint64_t writers[WRITERS];
};

static struct cpu {
	bool inside;
	unsigned int n_ops, n_used;
	struct line lines[SLOTS_MAX];
} cpus[CPUS];

static unsigned int n_files;
static const char *out;

static struct line *line_find(struct cpu *cpu, uint64_t address, bool add)
{
	uint32_t i = address * 0x9e3779b97f4a7c15ULL >> 46;

	while (cpu->lines[i].address && cpu->lines[i].address != address)
		i = (i + 1) % SLOTS_MAX;
	if (cpu->lines[i].address)
		return &cpu->lines[i];
	if (!add)
		return NULL;
	if (++cpu->n_used > SLOTS_MAX / 4 * 3)
		abort();
	cpu->lines[i].address = address;
	return &cpu->lines[i];
}

static void written(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *pc)
{
	struct line *line;
	unsigned int i;

	/* Loads come here, too, whatever was asked for. */
	if (!qemu_plugin_mem_is_store(info))
		return;
	if (vcpu >= CPUS || !cpus[vcpu].inside || !(vaddr >> 63))
		return;
	line = line_find(&cpus[vcpu], vaddr >> LINE_SHIFT << LINE_SHIFT, true);
	if (line->last_op != cpus[vcpu].n_ops) {
		line->last_op = cpus[vcpu].n_ops;
		++line->n_ops;
	}
	for (i = 0; i < WRITERS; ++i) {
		if (line->writers[i] == (uintptr_t)pc)
			return;
		if (!line->writers[i]) {
			line->writers[i] = (uintptr_t)pc;
			return;
		}
	}
}

static void begin(unsigned int vcpu, void *data)
{
	(void)data;
	if (vcpu >= CPUS)
		return;
	/* Counted from 1: none has been seen in operation 0. */
	++cpus[vcpu].n_ops;
	cpus[vcpu].inside = true;
}

static void end(unsigned int vcpu, void *data)
{
	(void)data;
	if (vcpu < CPUS)
		cpus[vcpu].inside = false;
}

/* The other CPU does nothing that is watched while this runs. */
static void write_out(unsigned int vcpu, void *data)
{
	const struct line *a, *b;
	char path[4096];
	unsigned int i, j;
	FILE *f;

	(void)vcpu;
	(void)data;
	snprintf(path, sizeof(path), "%s.%u", out, ++n_files);
	f = fopen(path, "w");
	if (!f)
		abort();
	fprintf(f, "operations %u %u\n", cpus[0].n_ops, cpus[1].n_ops);
	for (i = 0; i < SLOTS_MAX; ++i) {
		a = &cpus[0].lines[i];
		b = a->address ? line_find(&cpus[1], a->address, false) : NULL;
		if (!b)
			continue;
		fprintf(f, "%016" PRIx64 " %u %u", a->address, a->n_ops, b->n_ops);
		for (j = 0; j < WRITERS; ++j)
			if (a->writers[j])
				fprintf(f, " %" PRIx64, a->writers[j]);
		for (j = 0; j < WRITERS; ++j)
			if (b->writers[j])
				fprintf(f, " %" PRIx64, b->writers[j]);
		fputc('\n', f);
	}
	if (fclose(f))
		abort();
	memset(cpus, 0, sizeof(cpus));
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	static void (*const marks[])(unsigned int vcpu, void *data) = {
		NULL, begin, end, write_out,
	};
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *insn;
	unsigned int mark;

	(void)id;
	for (i = 0; i < n; ++i) {
		insn = qemu_plugin_tb_get_insn(tb, i);
		mark = plugin_mark(insn);
		if (mark && mark < sizeof(marks) / sizeof(*marks))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marks[mark],
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		qemu_plugin_register_vcpu_mem_cb(insn, written, QEMU_PLUGIN_CB_NO_REGS,
				QEMU_PLUGIN_MEM_W, (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn));
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
