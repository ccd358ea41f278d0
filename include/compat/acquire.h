/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ACQUIRE() and ACQUIRE_ERR(), for kernels such as 6.12: there a conditional guard that
 * has not got its lock holds NULL instead of an error. The driver does not look at which
 * error it is.
 */
#ifndef _PRECOPY_COMPAT_ACQUIRE_H
#define _PRECOPY_COMPAT_ACQUIRE_H

#include <linux/cleanup.h>
#include <linux/errno.h>

#define ACQUIRE(_name, _var)	 CLASS(_name, _var)
#define ACQUIRE_ERR(_name, _var) (class_##_name##_lock_ptr(_var) ? 0 : -EINTR)

#endif /* _PRECOPY_COMPAT_ACQUIRE_H */
