/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What clang does not do, and a kernel that was configured for gcc has: variables of
 * a CPU by named address spaces. This file comes after the configuration, and before
 * all that asks for it.
 */
#undef CONFIG_CC_HAS_NAMED_AS
#undef CONFIG_USE_X86_SEG_SUPPORT
