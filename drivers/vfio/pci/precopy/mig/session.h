/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Common part of saving and resuming sessions: the lifetime of a data fd, which
 * may outlive the session, the open device and the binding of the driver.
 */
#ifndef PRECOPY_SESSION_H
#define PRECOPY_SESSION_H

#include <linux/kref.h>
#include <linux/types.h>
#include <linux/wait.h>

struct file;
struct file_operations;
struct inode;
struct precopy_device;
struct precopy_model;
struct precopy_stream_params;

/**
 * struct precopy_session - one data transfer session and its file
 * @kref: references of the file, of the device while the session is current, and
 *	  of a running startup. The last put may sleep.
 * @pcd: counted reference to the device, valid after unbind. In a dead session
 *	 only its locks, generation, counters and the name of the carrier may be
 *	 used.
 * @model: model of the device, which may be another one when it is opened again
 * @generation: generation of the device when the session began
 * @wait: pollers of a saving data fd. Woken by its first dirty data, by STOP_COPY
 *	  and by the end of the session.
 * @release: callback that frees the object that contains the session
 * @dead: true after an arc, a reset or a close has ended the session. Protected
 *	  by state_lock; never becomes false again.
 * @busy: true while a thread is in read() or write(), or commits the session.
 *	  Protected by state_lock. A flag instead of a mutex, because a reset has
 *	  to end the wait for it.
 */
struct precopy_session {
	struct kref		kref;
	struct precopy_device	*pcd;
	const struct precopy_model	*model;
	u64			generation;
	wait_queue_head_t	wait;
	void			(*release)(struct precopy_session *session);
	bool			dead;
	bool			busy;
};

void precopy_session_init(struct precopy_session *session,
			  struct precopy_device *pcd, u64 generation,
			  void (*release)(struct precopy_session *session));
void precopy_session_get(struct precopy_session *session);
void precopy_session_put(struct precopy_session *session);
struct file *precopy_session_file(struct precopy_session *session,
				  const struct file_operations *fops,
				  int flags);
int precopy_session_file_release(struct inode *inode, struct file *filp);

int precopy_session_begin(struct precopy_session *session, bool nonblock);
void precopy_session_end(struct precopy_session *session);
bool precopy_session_dead(struct precopy_session *session);
void precopy_session_attach(struct precopy_session *session);
struct precopy_session *precopy_session_detach(struct precopy_device *pcd);
void precopy_session_params(struct precopy_device *pcd,
			    struct precopy_stream_params *params);

#endif /* PRECOPY_SESSION_H */
