/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What clang does not do, and a kernel that was configured for gcc has: variables of
 * a CPU by named address spaces. This file comes after the configuration, and before
 * all that asks for it: but for the qualifier of such a variable, since there is one.
 */
#undef CONFIG_CC_HAS_NAMED_AS
#undef CONFIG_USE_X86_SEG_SUPPORT

#ifdef _ASM_X86_PERCPU_TYPES_H
#undef __percpu_seg_override
#define __percpu_seg_override
#endif
