// SPDX-License-Identifier: GPL-2.0-only
/* Lifetime and mutual exclusion of data transfer sessions. */

#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/wait.h>
#include <kunit/visibility.h>

#include "model.h"
#include "precopy.h"
#include "session.h"

/**
 * precopy_session_init - initialise a session with one reference
 * @session: the session
 * @pcd: the device
 * @generation: generation of the device at the start of the state change
 * @release: callback of the last put, which frees the object around @session
 */
void precopy_session_init(struct precopy_session *session,
			  struct precopy_device *pcd, u64 generation,
			  void (*release)(struct precopy_session *session))
{
	kref_init(&session->kref);
	session->pcd = precopy_device_get(pcd);
	session->model = pcd->model;
	session->generation = generation;
	session->release = release;
	init_waitqueue_head(&session->wait);
}

/**
 * precopy_session_params - get the properties that source and target must share
 * @pcd: the device, open
 * @params: result
 */
void precopy_session_params(struct precopy_device *pcd,
			    struct precopy_stream_params *params)
{
	params->vendor = pcd->pdev->vendor;
	params->device = pcd->pdev->device;
	params->backend = PRECOPY_BACKEND_RAM;
	params->features = pcd->model->features;
	params->memory_size = pcd->memory.size;
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
EXPORT_SYMBOL_IF_KUNIT(precopy_session_put);

/**
 * precopy_session_file - create the file of a data fd
 * @session: the session; the file takes a reference
 * @fops: whose release is precopy_session_file_release()
 * @flags: O_RDONLY or O_WRONLY
 *
 * The file's private_data is the session. The owner of @fops keeps the module
 * loaded while the file is open.
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
 * precopy_session_file_release - handle the last close of a data fd
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
 * Return: false if another thread has the session; else true, with @ret 0 if the
 * caller has the session now, or -ENODEV if it is dead.
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
 * precopy_session_begin - get exclusive use of a session
 * @session: the session
 * @nonblock: return -EAGAIN instead of waiting for another thread
 *
 * Context: waits while another thread has the session, which includes its user
 * copy; no lock held but arc_mutex. A reset ends the wait.
 * Return: 0, -ENODEV if the session is dead, -EAGAIN, or precopy_interrupted().
 */
int precopy_session_begin(struct precopy_session *session, bool nonblock)
{
	int ret;

	if (precopy_session_try_begin(session, &ret))
		return ret;
	if (nonblock)
		return -EAGAIN;
	if (wait_event_interruptible(session->pcd->wait,
				     precopy_session_try_begin(session, &ret)))
		return precopy_interrupted();
	return ret;
}

/**
 * precopy_session_end - end the exclusive use of a session
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
 * precopy_session_dead - check whether a session has ended
 * @session: the session
 *
 * Return: true if so. The result never changes back to false.
 */
bool precopy_session_dead(struct precopy_session *session)
{
	guard(spinlock)(&session->pcd->state_lock);
	return session->dead;
}

/**
 * precopy_session_attach - make a session the current one of its device
 * @session: the session; the device takes a reference
 *
 * Context: state_lock held; the device has no session.
 */
void precopy_session_attach(struct precopy_session *session)
{
	struct precopy_device *pcd = session->pcd;

	lockdep_assert_held(&pcd->state_lock);
	precopy_session_get(session);
	pcd->session = session;
}

/**
 * precopy_session_detach - end the current session of a device, if there is one
 * @pcd: the device
 *
 * The data fd of the session returns ENODEV from now on. All that wait for the
 * session are woken: pollers, and readers that wait for another reader.
 *
 * Context: state_lock held.
 * Return: the session, whose reference the caller must put without a lock, or
 * NULL.
 */
struct precopy_session *precopy_session_detach(struct precopy_device *pcd)
{
	struct precopy_session *session = pcd->session;

	lockdep_assert_held(&pcd->state_lock);
	if (!session)
		return NULL;
	pcd->session = NULL;
	pcd->saving = NULL;
	pcd->loading = NULL;
	session->dead = true;
	wake_up_all(&session->wait);
	wake_up_all(&pcd->wait);
	return session;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_session_detach);
