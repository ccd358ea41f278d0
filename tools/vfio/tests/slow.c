// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into vfio-migrate by tests: a device whose change to the migration state
 * with the number $SLOW_STATE takes until the file $SLOW_UNTIL exists.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/vfio.h>

static int is_slow(unsigned long request, const void *arg)
{
	const uint32_t set = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
	const struct vfio_device_feature *feature = arg;
	struct vfio_device_feature_mig_state state;
	const char *number = getenv("SLOW_STATE");

	if (request != VFIO_DEVICE_FEATURE || feature->flags != set || !number)
		return 0;
	memcpy(&state, feature->data, sizeof(state));
	return state.device_state == (unsigned int)atoi(number);
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int, unsigned long, void *);
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ioctl");
	while (is_slow(request, arg) && access(getenv("SLOW_UNTIL"), F_OK))
		usleep(10000);
	return real(fd, request, arg);
}
