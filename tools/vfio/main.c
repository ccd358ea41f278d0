// SPDX-License-Identifier: GPL-2.0-only
/* vfio-migrate: moves the state of VFIO devices, without a VMM. */
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "transfer.h"
#include "util.h"

static const struct {
	const char	*name;
	int		(*run)(const struct options *opt);
} commands[] = {
	{ "info", cmd_info }, { "save", cmd_save }, { "load", cmd_load },
	{ "send", cmd_send }, { "receive", cmd_receive }, { "move", cmd_move },
	{ "run", cmd_run }, { "list", cmd_list }, { "check", cmd_check },
};

/* Usage errors are also reported as JSON */
static bool wants_json(char **argv)
{
	for (argv++; *argv && strcmp(*argv, "--"); argv++)
		if (!strcmp(*argv, "--json"))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	bool json = argc > 0 && wants_json(argv);
	struct options opt;
	size_t i;
	int ret;

	standard_files_init();
	signals_init();
	ret = options_parse(&opt, argc, argv);
	if (ret < 0)
		return ST_OK;
	if (ret) {
		if (json)
			failure_summary(opt.command, ret);
		return ret;
	}
	for (i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(opt.command, commands[i].name))
			break;
	ret = commands[i].run(&opt);
	if (ret > ST_SIGNAL && ret == interrupted())
		say("interrupted");
	if (opt.json)
		failure_summary(opt.command, ret);
	/* Do not return from main(), because a thread may be blocked in the driver */
	exit(ret);
}
