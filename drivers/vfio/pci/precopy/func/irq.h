/* SPDX-License-Identifier: GPL-2.0-only */
/* The engine's MSI-X vectors. */
#ifndef PRECOPY_IRQ_H
#define PRECOPY_IRQ_H

#include <linux/types.h>

struct precopy_engine;
struct vfio_irq_set;

void precopy_irq_raise(struct precopy_engine *engine, u32 vector);
void precopy_irq_deliver(struct precopy_engine *engine);
void precopy_irq_disable(struct precopy_engine *engine);
long precopy_irq_set(struct precopy_engine *engine,
		     const struct vfio_irq_set *hdr, void __user *data);

#endif /* PRECOPY_IRQ_H */
