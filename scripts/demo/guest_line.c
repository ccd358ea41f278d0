// SPDX-License-Identifier: GPL-2.0-only
/*
 * The line of a guest to the outside: its second serial port, and the words that the
 * kernel's command line has for it.
 *
 * Nothing here sleeps: under emulation a timer of the guest may be late by minutes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "guest_line.h"

static int line = -1;

void line_open(void)
{
	struct termios t;

	/* O_NONBLOCK: a port without a carrier would make the open() wait for one. */
	line = open("/dev/ttyS1", O_RDWR | O_NONBLOCK | O_NOCTTY);
	if (line < 0 || tcgetattr(line, &t))
		fail("no second serial port");
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL;
	cfsetspeed(&t, B115200);
	if (tcsetattr(line, TCSANOW, &t))
		fail("cannot set up the second serial port");
}

int line_read(char *c)
{
	return read(line, c, 1) == 1;
}

static void write_text(const char *text, size_t len, int must)
{
	while (len) {
		ssize_t n = write(line, text, len);

		if (n <= 0 && (!must || errno != EAGAIN))
			return;
		if (n <= 0)
			continue;
		text += n;
		len -= n;
		/* Half a line would spoil the next one as well. */
		must = 1;
	}
}

void say(int must, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;
	write_text(text, n, must);
}

_Noreturn void fail(const char *why)
{
	int error = errno;

	say(1, "FAIL %s (%s)\n", why, strerror(error));
	printf("guest: FAIL %s (%s)\n", why, strerror(error));
	for (;;)
		pause();
}

__u64 argument(char **argv, const char *name, __u64 otherwise)
{
	size_t len = strlen(name);

	for (; *argv; argv++)
		if (!strncmp(*argv, name, len) && (*argv)[len] == '=')
			return strtoull(*argv + len + 1, NULL, 0);
	return otherwise;
}
