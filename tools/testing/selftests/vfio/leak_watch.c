// SPDX-License-Identifier: GPL-2.0-only
/*
 * leak_watch MODULE COARSENESS: libvfio/leak_watch.h for programs in other
 * languages. Each line read is a number of cycles, at which a sample is taken
 * and "taken" is printed. At the end of the input the judgement is printed; the
 * status is 0 if nothing leaks, 1 if something does, 2 after a wrong use.
 */
#include <stdio.h>
#include <stdlib.h>

#include <libvfio.h>
#include <libvfio/leak_watch.h>

int main(int argc, char *argv[])
{
	struct leak_watch *watch;
	char line[64];

	if (argc != 3 || atof(argv[2]) <= 0) {
		fprintf(stderr, "usage: leak_watch MODULE COARSENESS\n");
		return 2;
	}
	watch = calloc_assert(1, sizeof(*watch));
	leak_watch_init(watch, argv[1], atof(argv[2]));
	while (fgets(line, sizeof(line), stdin)) {
		leak_watch_sample(watch, strtoull(line, NULL, 0));
		printf("taken\n");
		fflush(stdout);
	}
	return leak_watch_judge(watch) ? 1 : 0;
}
