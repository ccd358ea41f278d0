/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Peers: devices of this driver that the same user has opened. An engine reaches the
 * memory of its peers at the addresses that the guest has programmed into their BAR2,
 * as functions below one PCI Express switch reach each other. VFIO does not map this
 * memory for DMA, so the driver does it.
 */
#ifndef PRECOPY_PEERS_H
#define PRECOPY_PEERS_H

#include <linux/list.h>
#include <linux/types.h>

struct mm_struct;
struct precopy_device;

/**
 * struct precopy_peer - a device as its peers see it; but for @window protected by the
 *			 lock of the list
 * @node: entry in the list of the open devices
 * @mm: address space of the user who has opened the device, with a reference, or NULL
 *	while it is closed
 * @window: address of BAR2, or 0 if it has none or does not decode. Written with
 *	    memory.sem held for write, and read without a lock: an access that has
 *	    found the device may come after the guest has moved the BAR.
 * @users: number of accesses of peers that are executed. Close waits for them.
 */
struct precopy_peer {
	struct list_head	node;
	struct mm_struct	*mm;
	u64			window;
	unsigned int		users;
};

void precopy_peers_join(struct precopy_device *pcd);
void precopy_peers_leave(struct precopy_device *pcd);
void precopy_peers_set_window(struct precopy_device *pcd, u64 window);
bool precopy_peers_rw(struct precopy_device *pcd, u64 addr, void *buf,
		      size_t len, bool write, int *ret);
int precopy_peers_stop(struct precopy_device *pcd, u64 generation);
int precopy_peers_start(struct precopy_device *pcd, u64 generation);

#endif /* PRECOPY_PEERS_H */
