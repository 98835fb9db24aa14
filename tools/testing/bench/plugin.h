/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PLUGIN_H
#define PLUGIN_H

/*
 * Debian has no package with qemu-plugin.h: what is used of version 1 of that interface
 * is declared here, see "TCG Plugins" in QEMU's documentation.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
		void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
		void (*cb)(unsigned int vcpu, void *data),
		enum qemu_plugin_cb_flags flags, void *data);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn,
		enum qemu_plugin_op op, void *ptr, uint64_t imm);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
		void (*cb)(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr,
			   void *data),
		enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void *data);
extern _Bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
							size_t i);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
			char **argv);

/* Is it nopl 0x62310000 + X(%rax)? Return X, or 0. */
static inline unsigned int plugin_mark(const struct qemu_plugin_insn *insn)
{
	static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x31, 0x62 };
	const uint8_t *code = qemu_plugin_insn_data(insn);

	if (qemu_plugin_insn_size(insn) != sizeof(mark) || memcmp(code, mark, 3) ||
	    memcmp(code + 4, mark + 4, 3))
		return 0;
	return code[3];
}

/* The argument out=... */
static inline const char *plugin_out(int argc, char **argv)
{
	int i;

	for (i = 0; i < argc; ++i)
		if (!strncmp(argv[i], "out=", 4))
			return strdup(argv[i] + 4);
	return NULL;
}

#endif /* PLUGIN_H */
