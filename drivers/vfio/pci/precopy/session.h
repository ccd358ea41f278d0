/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What saving and resuming sessions have in common: a data fd that may outlive
 * the session, the device's user, and the binding of the driver.
 */
#ifndef PRECOPY_SESSION_H
#define PRECOPY_SESSION_H

#include <linux/kref.h>
#include <linux/types.h>

struct file;
struct file_operations;
struct inode;
struct precopy_device;

/**
 * struct precopy_session - one data transfer session and its file
 * @kref: held by the file, by the device while the session is current, and by
 *	  a running startup. The last put may sleep.
 * @pcd: the device; a reference, so it is there even after unbind, with its
 *	 locks, its generation, its counters and the name of the carrier. Once
 *	 the session is dead, that is all that may be used of it.
 * @generation: of the device when the session began
 * @release: frees the session around this
 * @dead: ended: by an arc, a reset or a close. Protected by state_lock; never
 *	  becomes false again.
 * @busy: somebody is in read() or write(), or the session is being committed.
 *	  Protected by state_lock. A flag and no mutex, because a reset must
 *	  be able to end the wait for it.
 */
struct precopy_session {
	struct kref		kref;
	struct precopy_device	*pcd;
	u64			generation;
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

#endif /* PRECOPY_SESSION_H */
