/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The messages of the simulated host begin with the module's name: its files define pr_fmt()
 * before they include <linux/printk.h>. The other headers of this directory include
 * <linux/printk.h> earlier, which would define another pr_fmt(). So the same definition
 * comes first.
 */
#ifndef _PRECOPY_COMPAT_PR_FMT_H
#define _PRECOPY_COMPAT_PR_FMT_H

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#endif /* _PRECOPY_COMPAT_PR_FMT_H */
