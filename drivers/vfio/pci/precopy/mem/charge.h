/* SPDX-License-Identifier: GPL-2.0-only */
/* Whom the memory is charged to: the opener, whoever allocates it. */
#ifndef PRECOPY_CHARGE_H
#define PRECOPY_CHARGE_H

#include <linux/cleanup.h>
#include <linux/memcontrol.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>

#include "memory.h"

/* Charges allocations of a scope to a memory cgroup, or to current's if it is NULL */
DEFINE_CLASS(precopy_charge, struct mem_cgroup *, set_active_memcg(_T),
	     set_active_memcg(memcg), struct mem_cgroup *memcg)

DEFINE_FREE(precopy_memcg, struct mem_cgroup *, mem_cgroup_put(_T))

/*
 * The opener's memory cgroup, with a reference, or NULL: the device may be closed
 * while the caller allocates. May sleep; memory.sem is not held.
 */
static inline struct mem_cgroup *precopy_memcg_get(struct precopy_memory *mem)
{
	guard(rwsem_read)(&mem->sem);
	return mem_cgroup_tryget(mem->memcg) ? mem->memcg : NULL;
}

#endif /* PRECOPY_CHARGE_H */
