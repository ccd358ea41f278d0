// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accesses of an engine to the BAR2 of another device of the same user.
 *
 * Lifetime: a device is in the list while it is open. An access counts itself in
 * @users of the peer, under the lock of the list, and close takes the peer out of the
 * list and waits until the count is 0. So the peer's memory, its memory cgroup and the
 * object itself are there during the access, and none of them is touched afterwards.
 * Source and destination of a step are two accesses.
 *
 * Locks: the lock of the list is taken outside state_lock, and never held during an
 * access. An access holds nothing of its own device, and takes memory.sem of the peer
 * for read, for one page. Nobody waits for a step with a memory.sem held, so two devices
 * may access each other while both of them are reset, closed or migrated.
 */

#include <linux/mm_types.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/wait.h>

#include "engine.h"
#include "mem/memory.h"
#include "peers.h"
#include "precopy.h"

static DEFINE_SPINLOCK(precopy_peers_lock);
static LIST_HEAD(precopy_peers);

/* --- The list --------------------------------------------------------- */

/**
 * precopy_peers_join - let peers find a device that is opened
 * @pcd: the device, after its reset
 *
 * Context: in the opener's context, whose address space makes it a peer of others.
 */
void precopy_peers_join(struct precopy_device *pcd)
{
	mmgrab(current->mm);
	guard(spinlock)(&precopy_peers_lock);
	pcd->peer.mm = current->mm;
	list_add_tail(&pcd->peer.node, &precopy_peers);
}

static bool precopy_peers_idle(struct precopy_device *pcd)
{
	guard(spinlock)(&precopy_peers_lock);
	return !pcd->peer.users;
}

/**
 * precopy_peers_leave - hide a device that is closed, and wait for its peers
 * @pcd: the device, whose engine was stopped
 *
 * Context: may sleep; no lock of this driver held. An access that is executed needs
 * no lock of the core, and no memory of the user.
 */
void precopy_peers_leave(struct precopy_device *pcd)
{
	scoped_guard(spinlock, &precopy_peers_lock)
		list_del(&pcd->peer.node);
	wait_event(pcd->wait, precopy_peers_idle(pcd));
	mmdrop(pcd->peer.mm);
	pcd->peer.mm = NULL;
}

/**
 * precopy_peers_set_window - the guest has moved BAR2, or its decoding has changed
 * @pcd: the device
 * @window: address of BAR2, or 0 if it does not decode. An address of 0 is that of a
 *	    BAR which nobody has programmed.
 *
 * Context: memory.sem held for write; state_lock may be held.
 */
void precopy_peers_set_window(struct precopy_device *pcd, u64 window)
{
	lockdep_assert_held_write(&pcd->memory.sem);
	WRITE_ONCE(pcd->peer.window, window);
}

/* --- Accesses --------------------------------------------------------- */

static bool precopy_peer_of(const struct precopy_device *pcd,
			    const struct precopy_device *other)
{
	lockdep_assert_held(&precopy_peers_lock);
	return other != pcd && other->peer.mm == pcd->peer.mm;
}

static struct precopy_device *precopy_peers_get(struct precopy_device *pcd,
						u64 addr, u64 *offset)
{
	struct precopy_device *peer;
	u64 window;

	guard(spinlock)(&precopy_peers_lock);
	list_for_each_entry(peer, &precopy_peers, peer.node) {
		window = READ_ONCE(peer->peer.window);
		*offset = addr - window;
		if (!precopy_peer_of(pcd, peer) || !window ||
		    *offset >= peer->memory.size)
			continue;
		peer->peer.users++;
		return peer;
	}
	return NULL;
}

/* The peer may be gone when the lock is released: it is woken before */
static void precopy_peers_put(struct precopy_device *peer)
{
	guard(spinlock)(&precopy_peers_lock);
	if (!--peer->peer.users)
		wake_up_all(&peer->wait);
}

static void precopy_peers_refused(struct precopy_device *pcd,
				  struct precopy_device *peer)
{
	atomic64_inc(&pcd->stats.p2p_refused);
	atomic64_inc(&peer->stats.p2p_refused);
	dev_warn_ratelimited(precopy_dev(peer),
			     "refused an access of a peer (%s), because the device has stopped\n",
			     pci_name(pcd->pdev));
}

/**
 * precopy_peers_rw - access memory of a peer
 * @pcd: the device, in a step
 * @addr: address, at which no memory of the guest is mapped
 * @buf: the data, or a buffer for it
 * @len: number of bytes, all in one page
 * @write: true to store, false to load
 * @ret: result: 0; -ESHUTDOWN if the peer has stopped, which both devices count; -EIO
 *	 if its BAR has just ceased to decode; -ENOMEM; -EIO at a page with a memory
 *	 error
 *
 * Context: may sleep, no lock held.
 * Return: false with @ret as it was if the address is in no window of a peer.
 */
bool precopy_peers_rw(struct precopy_device *pcd, u64 addr, void *buf,
		      size_t len, bool write, int *ret)
{
	struct precopy_device *peer;
	u64 offset;

	peer = precopy_peers_get(pcd, addr, &offset);
	if (!peer)
		return false;
	*ret = precopy_memory_peer_rw(&peer->memory, offset, buf, len, write);
	if (*ret == -ESHUTDOWN)
		precopy_peers_refused(pcd, peer);
	precopy_peers_put(peer);
	return true;
}

/* --- Arcs ------------------------------------------------------------- */

static int precopy_peers_accept(struct precopy_device *pcd, u64 generation,
				bool accept)
{
	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != generation)
		return -ECANCELED;
	precopy_memory_set_accepting(&pcd->memory, accept);
	return 0;
}

/* Can it still begin to access others by itself? */
static bool precopy_peer_acts(struct precopy_device *peer)
{
	guard(spinlock)(&peer->state_lock);
	return peer->engine && peer->engine->master && !peer->engine->quiesced;
}

/* A VMM has to bring all devices to a P2P state before it stops the first */
static bool precopy_peers_act(const struct precopy_device *pcd)
{
	struct precopy_device *peer;

	guard(spinlock)(&precopy_peers_lock);
	list_for_each_entry(peer, &precopy_peers, peer.node)
		if (precopy_peer_of(pcd, peer) && precopy_peer_acts(peer))
			return true;
	return false;
}

/**
 * precopy_peers_stop - operation of the models: accept nothing from peers
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Accesses that have begun are complete when this returns.
 *
 * Context: an arc, arc_mutex held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_peers_stop(struct precopy_device *pcd, u64 generation)
{
	int ret = precopy_peers_accept(pcd, generation, false);

	if (!ret && precopy_peers_act(pcd))
		atomic64_inc(&pcd->stats.p2p_order);
	return ret;
}

/**
 * precopy_peers_start - operation of the models: accept from peers again
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Context: an arc, arc_mutex held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_peers_start(struct precopy_device *pcd, u64 generation)
{
	return precopy_peers_accept(pcd, generation, true);
}
