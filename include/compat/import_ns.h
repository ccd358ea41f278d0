/* SPDX-License-Identifier: GPL-2.0-only */
/* MODULE_IMPORT_NS() of a string, for kernels such as 6.12, where it makes one of a name */
#ifndef _PRECOPY_COMPAT_IMPORT_NS_H
#define _PRECOPY_COMPAT_IMPORT_NS_H

#include <linux/module.h>

#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns) MODULE_INFO(import_ns, ns)

#endif /* _PRECOPY_COMPAT_IMPORT_NS_H */
