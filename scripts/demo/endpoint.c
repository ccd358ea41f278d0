// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another guest: process 1 of a virtual machine whose device has the model "engine".
 *
 * It loads Linux's own driver pci_endpoint_test, binds the device to it, and runs the
 * kernel's own kselftest of that driver again and again, in whatever happens to the
 * machine. Between two runs it asks the driver for an interrupt of each vector, since
 * the kselftest's test of them ends as skipped, failed or not.
 *
 * Lines that it writes to the second serial port:
 *   "READY driver=NAME" when the driver has the device
 *   "RUN number=N passed=N skipped=N failed=N vectors=N" after each run
 *   "BAD TEXT" for what a run had to complain of, "FAIL WHY" when it gives up
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/pcitest.h>

#include "guest_line.h"

#define DRIVER	"/sys/bus/pci/drivers/pci-endpoint-test"
#define NODE	"/dev/pci-endpoint-test.0"
#define TESTS	"/pci_endpoint_test"
#define VECTORS	8

struct counts {
	unsigned int passed, skipped, failed;
};

/* --- The driver ----------------------------------------------------------- */

static void load_driver(void)
{
	int fd = open("/pci_endpoint_test.ko", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		fail("the driver does not load");
	close(fd);
}

/* The driver has no data for an id that it is told of, and takes BAR 0 for registers. */
static void bind_device(char **argv)
{
	FILE *f = fopen(DRIVER "/new_id", "w");

	if (!f || fprintf(f, "%04llx %04llx", argument(argv, "vendor", 0),
			  argument(argv, "device", 0)) < 0 || fclose(f))
		fail("the driver does not take the device's id");
	if (access(NODE, R_OK | W_OK))
		fail("the driver does not take the device");
}

/* --- The tests ------------------------------------------------------------ */

/* Number of vectors whose interrupt came, and no other */
static unsigned int raise_vectors(void)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC), n;
	unsigned int came = 0;

	if (fd < 0 || ioctl(fd, PCITEST_SET_IRQTYPE, PCITEST_IRQ_TYPE_MSIX))
		fail("the driver has no MSI-X");
	for (n = 1; n <= VECTORS; n++) {
		if (ioctl(fd, PCITEST_MSIX, n))
			say(1, "BAD vector %d: %s\n", n, strerror(errno));
		else
			came++;
	}
	close(fd);
	return came;
}

/* An expectation that failed may be in a test that is skipped later. */
static void read_line(const char *text, struct counts *c)
{
	if (!strncmp(text, "ok ", 3) && strstr(text, "# SKIP"))
		c->skipped++;
	else if (!strncmp(text, "ok ", 3))
		c->passed++;
	else if (!strncmp(text, "not ok ", 7) || strstr(text, "Test failed"))
		c->failed++;
	else
		return;
	if (c->failed && strncmp(text, "ok ", 3))
		say(1, "BAD %s", text);
}

/* All but those of the interrupts that the device does not offer */
static int start_tests(void)
{
	int pipe_fds[2];
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		fail("no pipe");
	pid = fork();
	if (pid < 0)
		fail("no process");
	if (!pid) {
		dup2(pipe_fds[1], 1);
		dup2(pipe_fds[1], 2);
		execl(TESTS, TESTS, "-T", "LEGACY_IRQ_TEST", "-T", "MSI_TEST", (char *)NULL);
		_exit(127);
	}
	close(pipe_fds[1]);
	return pipe_fds[0];
}

static void run_tests(struct counts *c)
{
	FILE *f = fdopen(start_tests(), "r");
	char text[256];
	int status;

	while (f && fgets(text, sizeof(text), f))
		read_line(text, c);
	if (!f || fclose(f) || wait(&status) < 0)
		fail("the tests do not run");
	if (status && !c->failed) {
		say(1, "BAD the tests end with status %x\n", status);
		c->failed++;
	}
}

int main(int argc, char **argv)
{
	unsigned int number, vectors;

	(void)argc;
	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mkdir("/proc", 0755);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	line_open();
	load_driver();
	bind_device(argv);
	say(1, "READY driver=pci-endpoint-test\n");
	for (number = 1;; number++) {
		struct counts c = {};

		vectors = raise_vectors();
		run_tests(&c);
		say(1, "RUN number=%u passed=%u skipped=%u failed=%u vectors=%u\n",
		    number, c.passed, c.skipped, c.failed, vectors);
	}
}
