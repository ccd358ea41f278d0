/* SPDX-License-Identifier: GPL-2.0-only */
/* What the user asked for. */
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
 * struct options - the command line
 * @command: its name
 * @device: the device, or the source
 * @target: the target of a move
 * @output: file to save to, "-" is standard output
 * @input: file to load from, "-" is standard input
 * @has_input: the user has named it
 * @address: of --to or --listen
 * @json: machine-readable output
 * @iommu: how to open devices
 * @policy: when to stop the source
 * @stop_copy: no pre-copy
 * @bandwidth: bytes a second that the stream may take, 0 for no limit
 * @timeout_ns: how long a peer may be silent
 * @ack_timeout_ns: how long a target may take to start
 * @accept_timeout_ns: how long to wait for a source to connect
 * @fill: files to fill regions from first
 * @nr_fill: how many
 * @dump: files to copy regions to last
 * @nr_dump: how many
 * @hold: keep the device until a signal comes
 * @verify: only see whether the device takes it
 * @reset: a device that cannot be run otherwise may be reset
 * @run: the command to run with the device, or NULL
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

/* ST_OK, ST_USAGE, or -1 if the user asked for help and has got it. */
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
