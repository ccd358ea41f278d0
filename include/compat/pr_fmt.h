/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the simulated host prints begins with the module's name. A file says so before it
 * includes <linux/printk.h>, which the headers here do before each file.
 */
#ifndef _PRECOPY_COMPAT_PR_FMT_H
#define _PRECOPY_COMPAT_PR_FMT_H

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#endif /* _PRECOPY_COMPAT_PR_FMT_H */
