// SPDX-License-Identifier: GPL-2.0-only
/* Lifetime and mutual exclusion of data transfer sessions. */

#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/wait.h>

#include "precopy.h"
#include "session.h"

/**
 * precopy_session_init - a new session, with one reference
 * @session: to set up
 * @pcd: the device
 * @generation: of the device that the session is for
 * @release: called on the last put; frees what contains @session
 */
void precopy_session_init(struct precopy_session *session,
			  struct precopy_device *pcd, u64 generation,
			  void (*release)(struct precopy_session *session))
{
	kref_init(&session->kref);
	session->pcd = precopy_device_get(pcd);
	session->generation = generation;
	session->release = release;
}

/**
 * precopy_session_get - take a reference
 * @session: the session
 */
void precopy_session_get(struct precopy_session *session)
{
	kref_get(&session->kref);
}

static void precopy_session_release(struct kref *kref)
{
	struct precopy_session *session =
		container_of(kref, struct precopy_session, kref);
	struct precopy_device *pcd = session->pcd;

	session->release(session);
	precopy_device_put(pcd);
}

/**
 * precopy_session_put - drop a reference
 * @session: the session
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 */
void precopy_session_put(struct precopy_session *session)
{
	kref_put(&session->kref, precopy_session_release);
}

/**
 * precopy_session_file - the data fd's file
 * @session: the session; the file takes a reference
 * @fops: whose release is precopy_session_file_release()
 * @flags: O_RDONLY or O_WRONLY
 *
 * The session is its private_data. The driver stays loaded while the file is
 * open (@fops' owner).
 *
 * Return: the file, or an ERR_PTR().
 */
struct file *precopy_session_file(struct precopy_session *session,
				  const struct file_operations *fops,
				  int flags)
{
	struct file *filp;

	filp = anon_inode_getfile("precopy_vfio_mig", fops, session, flags);
	if (IS_ERR(filp))
		return filp;
	stream_open(filp->f_inode, filp);
	precopy_session_get(session);
	return filp;
}

/**
 * precopy_session_file_release - the data fd's last close
 * @inode: of the file
 * @filp: a file of precopy_session_file()
 *
 * Context: may sleep.
 * Return: 0.
 */
int precopy_session_file_release(struct inode *inode, struct file *filp)
{
	precopy_session_put(filp->private_data);
	return 0;
}

/*
 * False if somebody else has the session. Otherwise true, and @ret is 0 if it
 * is ours now, or -ENODEV.
 */
static bool precopy_session_try_begin(struct precopy_session *session, int *ret)
{
	guard(spinlock)(&session->pcd->state_lock);
	*ret = session->dead ? -ENODEV : 0;
	if (session->dead)
		return true;
	if (session->busy)
		return false;
	session->busy = true;
	return true;
}

/**
 * precopy_session_begin - become the only one in the session
 * @session: the session
 * @nonblock: do not wait for whoever is
 *
 * Context: waits (killable), for as long as the other's user copy takes; no
 * lock held. A reset ends the wait.
 * Return: 0, -ENODEV if the session is dead, -EAGAIN, or -EINTR.
 */
int precopy_session_begin(struct precopy_session *session, bool nonblock)
{
	int ret;

	if (precopy_session_try_begin(session, &ret))
		return ret;
	if (nonblock)
		return -EAGAIN;
	if (wait_event_killable(session->pcd->wait,
				precopy_session_try_begin(session, &ret)))
		return -EINTR;
	return ret;
}

/**
 * precopy_session_end - let the next one in
 * @session: the session
 */
void precopy_session_end(struct precopy_session *session)
{
	struct precopy_device *pcd = session->pcd;

	scoped_guard(spinlock, &pcd->state_lock)
		session->busy = false;
	wake_up_all(&pcd->wait);
}

/**
 * precopy_session_dead - has the session ended?
 * @session: the session
 *
 * Return: true if so; it will not change back.
 */
bool precopy_session_dead(struct precopy_session *session)
{
	guard(spinlock)(&session->pcd->state_lock);
	return session->dead;
}
