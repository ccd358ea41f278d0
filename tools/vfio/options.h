/* SPDX-License-Identifier: GPL-2.0-only */
/* The parsed command line. */
#ifndef VFIO_MIGRATE_OPTIONS_H
#define VFIO_MIGRATE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "policy.h"

#define MAX_REGIONS	4

struct region_file {
	unsigned int	index;
	const char	*path;
};

/**
 * struct options - the parsed command line
 * @command: name of the command
 * @device: name of the device, or of the source
 * @target: name of the target of a move
 * @output: name of the file to write, "-" for standard output
 * @input: name of the file to read, "-" for standard input
 * @has_input: true if @input was given by the user
 * @address: argument of --to or --listen
 * @json: true for JSON output
 * @iommu: interface through which devices are opened
 * @policy: policy for the time of stopping the source
 * @stop_copy: true to stop the source without pre-copy
 * @bandwidth: maximum bandwidth of the stream in bytes per second, 0 for no
 *	limit
 * @timeout_ns: time in ns for which the peer may be silent
 * @ack_timeout_ns: time in ns in which a target must start
 * @accept_timeout_ns: time in ns to wait for a source to connect
 * @fill: files from which regions are filled first
 * @nr_fill: number of elements of @fill
 * @dump: files to which regions are copied last
 * @nr_dump: number of elements of @dump
 * @hold: true to keep the device open until a signal arrives
 * @verify: true to check only whether the device accepts the state
 * @reset: true if a device that cannot run otherwise may be reset
 * @run: command to run with the device, or NULL
 */
struct options {
	const char		*command;
	const char		*device;
	const char		*target;
	const char		*output;
	const char		*input;
	bool			has_input;
	const char		*address;
	bool			json;
	enum iommu		iommu;
	struct policy		policy;
	bool			stop_copy;
	uint64_t		bandwidth;
	uint64_t		timeout_ns;
	uint64_t		ack_timeout_ns;
	uint64_t		accept_timeout_ns;
	struct region_file	fill[MAX_REGIONS];
	int			nr_fill;
	struct region_file	dump[MAX_REGIONS];
	int			nr_dump;
	bool			hold;
	bool			verify;
	bool			reset;
	char			**run;
};

/* Returns ST_OK, ST_USAGE, or -1 if help or the version was printed. */
int options_parse(struct options *opt, int argc, char **argv);

/* The commands. */
int cmd_info(const struct options *opt);
int cmd_save(const struct options *opt);
int cmd_load(const struct options *opt);
int cmd_send(const struct options *opt);
int cmd_receive(const struct options *opt);
int cmd_move(const struct options *opt);
int cmd_run(const struct options *opt);
int cmd_list(const struct options *opt);
int cmd_check(const struct options *opt);
/* "info" of a snapshot */
int info_snapshot(const struct options *opt);

#endif /* VFIO_MIGRATE_OPTIONS_H */
