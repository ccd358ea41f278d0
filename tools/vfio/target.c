// SPDX-License-Identifier: GPL-2.0-only
/* A device that loads: see target.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migration.h"
#include "target.h"
#include "util.h"

/* Time after which a call counts as blocked */
#define BLOCKED_NS	(100 * NS_PER_MS)

/* --- The thread ----------------------------------------------------------------- */

static void notify(struct target *target)
{
	uint64_t one = 1;

	if (write(target->event_fd, &one, sizeof(one)) < 0)
		return;
}

static bool has_work(const struct target *target)
{
	return target->pushed != target->done || target->asked > target->reached;
}

/* Called with the lock held, which is released during calls of the driver */
static int write_slot(struct target *target)
{
	unsigned int i = target->done % TARGET_SLOTS;
	uint32_t len = target->len[i], at = 0;
	ssize_t n;

	while (at < len) {
		pthread_mutex_unlock(&target->lock);
		n = write(target->data_fd, target->slot[i] + at, len - at);
		if (!n)
			errno = EIO;
		pthread_mutex_lock(&target->lock);
		if (n <= 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return errno;
		at += n;
		target->written += n;
	}
	target->done++;
	return 0;
}

static int take_step(struct target *target)
{
	enum target_step next = target->reached + 1;
	int ret;

	pthread_mutex_unlock(&target->lock);
	ret = mig_set_state(target->dev, next == TARGET_COMMIT ? VFIO_DEVICE_STATE_STOP :
			    VFIO_DEVICE_STATE_RUNNING, NULL);
	pthread_mutex_lock(&target->lock);
	if (!ret)
		target->reached = next;
	return -ret;
}

static void *worker(void *arg)
{
	struct target *target = arg;

	pthread_mutex_lock(&target->lock);
	while (!target->error && target->reached < TARGET_RUN) {
		if (!has_work(target)) {
			pthread_cond_wait(&target->wake, &target->lock);
			continue;
		}
		target->busy_since = now_ns();
		if (target->pushed != target->done)
			target->error = write_slot(target);
		else
			target->error = take_step(target);
		target->busy_since = 0;
		notify(target);
	}
	pthread_mutex_unlock(&target->lock);
	return NULL;
}

/* --- Its user --------------------------------------------------------------------- */

static bool allocate(struct target *target)
{
	int i;

	for (i = 0; i < TARGET_SLOTS; i++) {
		target->slot[i] = malloc(FRAME_MAX_DATA);
		if (!target->slot[i])
			return false;
	}
	return true;
}

int target_begin(struct target *target, const struct device *dev)
{
	int ret;

	*target = (struct target){ .dev = dev, .data_fd = -1, .event_fd = -1 };
	pthread_mutex_init(&target->lock, NULL);
	pthread_cond_init(&target->wake, NULL);
	target->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (target->event_fd < 0 || !allocate(target))
		return fail(ST_FAILED, "no memory");
	ret = mig_set_state(dev, VFIO_DEVICE_STATE_RESUMING, &target->data_fd);
	if (ret)
		return fail(ST_FAILED, "%s cannot change to RESUMING: %s", dev->name,
			    strerror(-ret));
	if (pthread_create(&target->thread, NULL, worker, target))
		return fail(ST_FAILED, "a thread cannot be started");
	return ST_OK;
}

static int say_error(const struct target *target)
{
	const char *why = strerror(target->error);

	switch (target->reached) {
	case TARGET_LOAD:
		if (target->pushed != target->done)
			return fail(ST_FAILED, "%s does not accept the stream after %llu bytes: %s",
				    target->dev->name, (unsigned long long)target->written, why);
		return fail(ST_FAILED, "%s could not complete the load: %s", target->dev->name,
			    why);
	default:
		return fail(ST_FAILED, "%s has loaded the state but does not run: %s",
			    target->dev->name, why);
	}
}

int target_look(struct target *target, struct target_view *view)
{
	uint64_t count;
	int ret = ST_OK;

	if (read(target->event_fd, &count, sizeof(count)) < 0)
		count = 0;
	pthread_mutex_lock(&target->lock);
	view->reached = target->reached;
	view->written = target->written;
	view->blocked = target->busy_since && now_ns() - target->busy_since > BLOCKED_NS;
	view->idle = target->pushed == target->done;
	if (target->error)
		ret = say_error(target);
	pthread_mutex_unlock(&target->lock);
	return ret;
}

void *target_room(struct target *target)
{
	void *room = NULL;

	pthread_mutex_lock(&target->lock);
	if (target->pushed - target->done < TARGET_SLOTS)
		room = target->slot[target->pushed % TARGET_SLOTS];
	pthread_mutex_unlock(&target->lock);
	return room;
}

void target_push(struct target *target, uint32_t len)
{
	pthread_mutex_lock(&target->lock);
	target->len[target->pushed % TARGET_SLOTS] = len;
	target->pushed++;
	pthread_cond_signal(&target->wake);
	pthread_mutex_unlock(&target->lock);
}

void target_ask(struct target *target, enum target_step step)
{
	pthread_mutex_lock(&target->lock);
	target->asked = step;
	pthread_cond_signal(&target->wake);
	pthread_mutex_unlock(&target->lock);
}

void target_status(struct target *target, const struct target_view *view,
		   struct frame_status *status)
{
	struct vfio_precopy_startup startup;

	*status = (struct frame_status){ .written = view->written };
	if (view->blocked)
		status->flags |= FRAME_STATUS_BLOCKED;
	if (view->reached != TARGET_LOAD || mig_startup(target->data_fd, &startup))
		return;
	status->flags |= FRAME_STATUS_STARTUP;
	if (startup.flags & VFIO_PRECOPY_STARTUP_MEASURED)
		status->flags |= FRAME_STATUS_MEASURED;
	status->phase = startup.phase;
	status->remaining_ns = startup.remaining_ns;
	status->prepared = startup.bytes_prepared;
	status->in_use = startup.bytes_in_use;
}

void target_wait(struct target *target, int fd, uint64_t deadline)
{
	struct pollfd fds[2] = {
		{ .fd = target->event_fd, .events = POLLIN },
		{ .fd = fd, .events = POLLIN },
	};

	wait_fds(fds, 2, deadline);
}

void target_end(struct target *target)
{
	int i;

	pthread_join(target->thread, NULL);
	for (i = 0; i < TARGET_SLOTS; i++)
		free(target->slot[i]);
	close(target->data_fd);
	close(target->event_fd);
}

void target_abandon(struct target *target)
{
	/* Closing resets the device as well, unless other processes have it open */
	if (target->dev->given && ioctl(target->dev->fd, VFIO_DEVICE_RESET))
		warn("%s cannot be reset: %s", target->dev->name, strerror(errno));
}
