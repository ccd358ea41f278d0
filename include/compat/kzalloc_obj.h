/* SPDX-License-Identifier: GPL-2.0-only */
/* kzalloc_obj() and kzalloc_flex(), for kernels that lack them */
#ifndef _PRECOPY_COMPAT_KZALLOC_OBJ_H
#define _PRECOPY_COMPAT_KZALLOC_OBJ_H

#include <linux/overflow.h>
#include <linux/slab.h>

/* GFP_KERNEL if no flags are given */
#define precopy_compat_gfp(none, gfp, ...) ((void)(none), (gfp))

#define kzalloc_obj(what, ...) \
	kzalloc(sizeof(typeof(what)), \
		precopy_compat_gfp(0, ##__VA_ARGS__, GFP_KERNEL))
#define kzalloc_flex(what, member, count, gfp) \
	kzalloc(struct_size_t(typeof(what), member, count), gfp)

#endif /* _PRECOPY_COMPAT_KZALLOC_OBJ_H */
