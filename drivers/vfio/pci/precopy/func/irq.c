// SPDX-License-Identifier: GPL-2.0-only
/*
 * The engine's MSI-X vectors. The VMM emulates table and masks, as for any device of
 * VFIO; here a vector is an eventfd.
 *
 * An interrupt is raised once and arrives once: at the eventfd if the device runs,
 * and if it is quiesced, when it runs again, on the target if it migrates. Raised
 * while there is no eventfd it is lost, as an interrupt of a device whose MSI-X is
 * off, and counted.
 */

#include <linux/bitops.h>
#include <linux/eventfd.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#include "engine.h"
#include "irq.h"
#include "precopy.h"

static void precopy_irq_signal(struct precopy_engine *engine, u32 vector)
{
	struct precopy_stats *stats = &engine->pcd->stats;

	lockdep_assert_held(&engine->pcd->state_lock);
	if (!engine->trigger[vector] || !engine->master) {
		atomic64_inc(&stats->irqs_dropped);
		return;
	}
	eventfd_signal(engine->trigger[vector]);
	atomic64_inc(&stats->irqs_raised);
}

/**
 * precopy_irq_raise - raise an interrupt
 * @engine: the engine
 * @vector: number of the vector. One that does not exist has no effect.
 *
 * Context: state_lock held.
 */
void precopy_irq_raise(struct precopy_engine *engine, u32 vector)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	if (vector >= PRECOPY_ENGINE_VECTORS)
		return;
	if (!engine->quiesced) {
		precopy_irq_signal(engine, vector);
		return;
	}
	engine->state.pending |= BIT(vector);
	atomic64_inc(&engine->pcd->stats.irqs_kept);
}

/**
 * precopy_irq_deliver - deliver the interrupts that were kept
 * @engine: the engine, not quiesced any more
 *
 * Context: state_lock held.
 */
void precopy_irq_deliver(struct precopy_engine *engine)
{
	unsigned long pending = engine->state.pending;
	unsigned int vector;

	lockdep_assert_held(&engine->pcd->state_lock);
	engine->state.pending = 0;
	for_each_set_bit(vector, &pending, PRECOPY_ENGINE_VECTORS)
		precopy_irq_signal(engine, vector);
}

/* --- VFIO_DEVICE_SET_IRQS --------------------------------------------- */

/* Set one vector's eventfd; the old one comes back in @trigger */
static void precopy_irq_bind(struct precopy_engine *engine, u32 vector,
			     struct eventfd_ctx **trigger)
{
	guard(spinlock)(&engine->pcd->state_lock);
	swap(engine->trigger[vector], *trigger);
}

static int precopy_irq_set_eventfd(struct precopy_engine *engine, u32 vector,
				   s32 fd)
{
	struct eventfd_ctx *trigger = NULL;

	/* A negative number takes the eventfd away */
	if (fd >= 0)
		trigger = eventfd_ctx_fdget(fd);
	if (IS_ERR(trigger))
		return PTR_ERR(trigger);
	precopy_irq_bind(engine, vector, &trigger);
	if (trigger)
		eventfd_ctx_put(trigger);
	return 0;
}

/* From the first eventfd on MSI-X is enabled, with vectors up to the last one named */
static void precopy_irq_enable(struct precopy_engine *engine, u32 nr_vectors)
{
	guard(spinlock)(&engine->pcd->state_lock);
	engine->nr_vectors = max(engine->nr_vectors, nr_vectors);
}

static bool precopy_irq_enabled(struct precopy_engine *engine)
{
	guard(spinlock)(&engine->pcd->state_lock);
	return engine->nr_vectors;
}

/**
 * precopy_irq_disable - disable MSI-X, and drop all eventfds
 * @engine: the engine
 *
 * Context: process context, no lock held.
 */
void precopy_irq_disable(struct precopy_engine *engine)
{
	struct eventfd_ctx *trigger;
	u32 vector;

	scoped_guard(spinlock, &engine->pcd->state_lock)
		engine->nr_vectors = 0;
	for (vector = 0; vector < PRECOPY_ENGINE_VECTORS; vector++) {
		trigger = NULL;
		precopy_irq_bind(engine, vector, &trigger);
		if (trigger)
			eventfd_ctx_put(trigger);
	}
}

static int precopy_irq_set_eventfds(struct precopy_engine *engine,
				    const struct vfio_irq_set *hdr,
				    const s32 *fds)
{
	bool enabled = precopy_irq_enabled(engine);
	int ret = 0;
	u32 i;

	for (i = 0; i < hdr->count && !ret; i++)
		ret = precopy_irq_set_eventfd(engine, hdr->start + i, fds[i]);
	if (!ret)
		precopy_irq_enable(engine, hdr->start + hdr->count);
	else if (!enabled)
		precopy_irq_disable(engine);
	else	/* As if this block had never been named */
		while (i--)
			precopy_irq_set_eventfd(engine, hdr->start + i, -1);
	return ret;
}

/* The user raises interrupts itself, to test its eventfds */
static int precopy_irq_trigger(struct precopy_engine *engine,
			       const struct vfio_irq_set *hdr, const u8 *bools)
{
	u32 i;

	guard(spinlock)(&engine->pcd->state_lock);
	if (!engine->nr_vectors)
		return -EINVAL;
	for (i = 0; i < hdr->count; i++)
		if ((!bools || bools[i]) && engine->trigger[hdr->start + i])
			eventfd_signal(engine->trigger[hdr->start + i]);
	return 0;
}

static int precopy_irq_set_none(struct precopy_engine *engine,
				const struct vfio_irq_set *hdr)
{
	if (hdr->count)
		return precopy_irq_trigger(engine, hdr, NULL);
	precopy_irq_disable(engine);
	return 0;
}

static int precopy_irq_set_data(struct precopy_engine *engine,
				const struct vfio_irq_set *hdr,
				void __user *data, size_t size)
{
	void *array __free(kfree) = memdup_user(data, size);

	if (IS_ERR(array))
		return PTR_ERR(array);
	if (hdr->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return precopy_irq_set_eventfds(engine, hdr, array);
	return precopy_irq_trigger(engine, hdr, array);
}

/**
 * precopy_irq_set - VFIO_DEVICE_SET_IRQS for MSI-X
 * @engine: the engine
 * @hdr: copy of the request's header
 * @data: address of what follows the header
 *
 * Vectors can be added and changed one by one, as VFIO_IRQ_INFO_NORESIZE is not
 * set. A reset of the device leaves the eventfds as they are, as one of a physical
 * device does: they are the user's, not the guest's.
 *
 * Return: 0, -EINVAL for a request that is malformed or triggers vectors while MSI-X
 * is off, -ENOTTY for masking, which MSI-X of VFIO does not have, -EFAULT, -EBADF or
 * -EINVAL for what is not an eventfd, -ENOMEM.
 */
long precopy_irq_set(struct precopy_engine *engine,
		     const struct vfio_irq_set *hdr, void __user *data)
{
	struct vfio_irq_set copy = *hdr;
	size_t size;
	int ret;

	ret = vfio_set_irqs_validate_and_prepare(&copy, PRECOPY_ENGINE_VECTORS,
						 VFIO_PCI_NUM_IRQS, &size);
	if (ret)
		return ret;
	if ((hdr->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) !=
	    VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (hdr->flags & VFIO_IRQ_SET_DATA_NONE)
		return precopy_irq_set_none(engine, hdr);
	if (!hdr->count)
		return -EINVAL;
	return precopy_irq_set_data(engine, hdr, data, size);
}
