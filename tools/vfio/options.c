// SPDX-License-Identifier: GPL-2.0-only
/* The command line. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint.h"
#include "options.h"
#include "util.h"

/* Version of the project, as in CHANGELOG.md and debian/changelog */
#define VERSION	"0.2.0"

static const char usage_text[] =
"Saves, loads and moves the state of VFIO devices, without a VMM.\n"
"\n"
"  vfio-migrate list    [--json]\n"
"  vfio-migrate info    DEVICE | -i FILE\n"
"  vfio-migrate check   SOURCE TARGET\n"
"  vfio-migrate save    DEVICE [-o FILE]\n"
"  vfio-migrate load    DEVICE [-i FILE] KEEP\n"
"  vfio-migrate send    DEVICE --to ADDRESS\n"
"  vfio-migrate receive DEVICE --listen ADDRESS KEEP\n"
"  vfio-migrate move    SOURCE TARGET KEEP\n"
"  vfio-migrate run     fd:N [--reset]\n"
"\n"
"DEVICE is a PCI address (0000:03:00.0), a device's directory in sysfs, or fd:N,\n"
"an open VFIO device that was inherited. ADDRESS is HOST:PORT or unix:PATH.\n"
"\n"
"A device loses its state when it is closed. KEEP tells what to do with a loaded\n"
"device. It is at least one of:\n"
"  --hold                  keep it open until Ctrl-C\n"
"  -- COMMAND ...          run COMMAND with its descriptor $VFIO_MIGRATE_FD\n"
"  --dump-region IDX=FILE  copy region IDX to FILE\n"
"  --verify                only check whether the device accepts the state\n"
"\n"
"A device that is opened by its address has no state yet:\n"
"  --fill-region IDX=FILE  fill region IDX of the source first (save, send, move)\n"
"\n"
"'run' runs a device that a migration has left stopped and that a program has\n"
"open. A device that has failed, or that is loaded in part, also needs:\n"
"  --reset                 reset the device, which clears it\n"
"\n"
"When to stop the source (save, send, move):\n"
"  --optimize downtime     when the target has acknowledged that it has started,\n"
"                          and the remaining data fits the downtime (default)\n"
"  --optimize total-time   as soon as waiting would prolong the migration\n"
"  --max-downtime MS       give up if this is exceeded (default: aim at 300)\n"
"  --stop-copy             at once, without pre-copy\n"
"  --bandwidth RATE        send at most RATE bytes per second, such as 100M\n"
"\n"
"  --iommu auto|type1|iommufd   how to open the device (default: auto)\n"
"  --vf-token UUID         VF token of a virtual function\n"
"  --timeout S             how long the other side may be silent (default 10)\n"
"  --ack-timeout S         how long the target may take to start (default 300)\n"
"  --accept-timeout S      how long to wait for a source (default 600)\n"
"  --json                  print results and failures as JSON\n"
"  -q, --quiet             print only errors\n"
"  -v, --verbose           print each step\n"
"  -h, --help              print this text; after a command, its options\n"
"  -V, --version           print the version\n"
"\n"
"Exit status: 0 success; 1 failure; 2 usage error; 3 the device cannot migrate\n"
"or cannot be opened; 4 the other side or the connection failed; 5 the maximum\n"
"downtime cannot be met; 6 it is unknown whether the target runs; 7 a file is\n"
"unusable; 8 success, but a later step failed; 9 failure, and the source could\n"
"not be resumed; 126 COMMAND cannot be run; 128+N signal N; otherwise the status\n"
"of COMMAND. See vfio-migrate(8).\n";

enum {
	OPT_TO = 256, OPT_LISTEN, OPT_JSON, OPT_IOMMU, OPT_OPTIMIZE, OPT_MAX_DOWNTIME,
	OPT_STOP_COPY, OPT_TIMEOUT, OPT_ACK_TIMEOUT, OPT_ACCEPT_TIMEOUT, OPT_FILL,
	OPT_DUMP, OPT_HOLD, OPT_VERIFY, OPT_RESET,
	OPT_BANDWIDTH, OPT_VF_TOKEN,
};

/**
 * struct known - an option
 * @opt: name and letter, for getopt_long()
 * @commands: letters of the commands that have the option: info, save, Load, seNd,
 *	      Receive, Move, rUn, lisT, Check
 * @arg: name of its argument, or NULL
 * @help: description in the help text
 */
struct known {
	struct option	opt;
	const char	*commands;
	const char	*arg;
	const char	*help;
};

static const struct known known[] = {
	{ { "output", required_argument, NULL, 'o' }, "s", "FILE",
	  "snapshot to write (default: standard output)" },
	{ { "input", required_argument, NULL, 'i' }, "il", "FILE",
	  "snapshot to read (default of load: standard input)" },
	{ { "to", required_argument, NULL, OPT_TO }, "n", "ADDRESS",
	  "address of 'receive': HOST:PORT or unix:PATH" },
	{ { "listen", required_argument, NULL, OPT_LISTEN }, "r", "ADDRESS",
	  "address to listen on: HOST:PORT or unix:PATH" },
	{ { "fill-region", required_argument, NULL, OPT_FILL }, "snm", "IDX=FILE",
	  "fill region IDX of the source first" },
	{ { "hold", no_argument, NULL, OPT_HOLD }, "lrm", NULL,
	  "then keep the device open until Ctrl-C" },
	{ { "dump-region", required_argument, NULL, OPT_DUMP }, "slnrm", "IDX=FILE",
	  "then copy region IDX to FILE" },
	{ { "verify", no_argument, NULL, OPT_VERIFY }, "lrm", NULL,
	  "only check whether the device accepts the state" },
	{ { "reset", no_argument, NULL, OPT_RESET }, "u", NULL,
	  "reset a device that cannot be run otherwise" },
	{ { "optimize", required_argument, NULL, OPT_OPTIMIZE }, "snm", "GOAL",
	  "when to stop the source: downtime (default) or total-time" },
	{ { "max-downtime", required_argument, NULL, OPT_MAX_DOWNTIME }, "snm", "MS",
	  "give up if this is exceeded (default: aim at 300)" },
	{ { "stop-copy", no_argument, NULL, OPT_STOP_COPY }, "snm", NULL,
	  "stop the source at once, without pre-copy" },
	{ { "bandwidth", required_argument, NULL, OPT_BANDWIDTH }, "snm", "RATE",
	  "send at most RATE bytes per second, such as 100M" },
	{ { "timeout", required_argument, NULL, OPT_TIMEOUT }, "nrm", "S",
	  "how long the other side may be silent (default 10)" },
	{ { "ack-timeout", required_argument, NULL, OPT_ACK_TIMEOUT }, "nm", "S",
	  "how long the target may take to start (default 300)" },
	{ { "accept-timeout", required_argument, NULL, OPT_ACCEPT_TIMEOUT }, "r", "S",
	  "how long to wait for a source (default 600)" },
	{ { "iommu", required_argument, NULL, OPT_IOMMU }, "islnrmc", "HOW",
	  "how to open the device: auto (default), type1 or iommufd" },
	{ { "vf-token", required_argument, NULL, OPT_VF_TOKEN }, "islnrmc", "UUID",
	  "VF token of the physical function" },
	{ { "json", no_argument, NULL, OPT_JSON }, "islnrmutc", NULL,
	  "print results and failures as JSON" },
	{ { "quiet", no_argument, NULL, 'q' }, "islnrmutc", NULL, "print only errors" },
	{ { "verbose", no_argument, NULL, 'v' }, "islnrmutc", NULL,
	  "print each step" },
	{ { "help", no_argument, NULL, 'h' }, "islnrmutc", NULL, "print this text" },
	{ { "version", no_argument, NULL, 'V' }, "islnrmutc", NULL, "print the version" },
};

/**
 * struct command - a command
 * @name: its name
 * @letter: its letter in @commands of struct known
 * @devices: number of devices on its command line
 * @synopsis: its arguments in the help text
 * @help: description in the help text
 */
struct command {
	const char	*name;
	char		letter;
	int		devices;
	const char	*synopsis;
	const char	*help;
};

static const struct command commands[] = {
	{ "info", 'i', 1, "DEVICE | -i FILE",
	  "Prints how a device is bound and whether it can migrate, or describes a snapshot." },
	{ "save", 's', 1, "DEVICE [-o FILE]", "Writes a device's state to a file." },
	{ "load", 'l', 1, "DEVICE [-i FILE] KEEP",
	  "Loads a file written by 'save' into a device, and runs the device." },
	{ "send", 'n', 1, "DEVICE --to ADDRESS",
	  "Moves a device to the host on which 'receive' listens." },
	{ "receive", 'r', 1, "DEVICE --listen ADDRESS KEEP",
	  "Receives the state of a device from one source, and runs the device." },
	{ "move", 'm', 2, "SOURCE TARGET KEEP",
	  "Moves a device to another device of this host." },
	{ "run", 'u', 1, "fd:N", "Runs a device that a migration has left stopped." },
	{ "list", 't', 0, "",
	  "Lists the devices that are bound to a VFIO driver. Opens none of them." },
	{ "check", 'c', 2, "SOURCE TARGET", "Prints whether SOURCE can be moved to TARGET." },
};

static void print_option(const struct known *option)
{
	char text[64], letter[8] = "    ";

	if (option->opt.val < 256)
		snprintf(letter, sizeof(letter), "-%c, ", option->opt.val);
	snprintf(text, sizeof(text), "%s--%s%s%s", letter, option->opt.name,
		 option->arg ? " " : "", option->arg ?: "");
	printf("  %-28s %s\n", text, option->help);
}

/* Print the help of @command, or of all commands if it is NULL */
static void print_help(const struct command *command)
{
	size_t i;

	if (!command) {
		fputs(usage_text, stdout);
		return;
	}
	printf("vfio-migrate %s %s [OPTION]...\n\n%s\n\n", command->name, command->synopsis,
	       command->help);
	if (strstr(command->synopsis, "KEEP"))
		puts("KEEP is at least one of --hold, --dump-region, --verify and -- COMMAND ...,\n"
		     "which runs COMMAND with the device's file descriptor $VFIO_MIGRATE_FD.\n");
	for (i = 0; i < ARRAY_LEN(known); i++)
		if (strchr(known[i].commands, command->letter))
			print_option(&known[i]);
	puts("\nSee 'vfio-migrate --help' and vfio-migrate(8).");
}

/* --- Values ---------------------------------------------------------------------- */

static bool parse_number(const char *text, double min, double max, double *value)
{
	char *end;

	*value = strtod(text, &end);
	return *text && !*end && *value >= min && *value <= max;
}

static int parse_time(const char *name, const char *text, uint64_t unit, uint64_t *ns)
{
	double value;

	if (!parse_number(text, 0.01, 1e6, &value))
		return fail(ST_USAGE, "--%s needs a number of %s from 0.01 to 1000000, not '%s'",
			    name, unit == NS_PER_S ? "seconds" : "milliseconds", text);
	*ns = value * unit;
	return ST_OK;
}

/* Parse a rate in the format of text_bytes(), such as 1.5M, 100K or 2 GiB; at least 1K */
static int parse_rate(const char *name, const char *text, uint64_t *rate)
{
	static const char units[] = "KMGT";
	const char *unit;
	double value;
	char *end;

	value = strtod(text, &end);
	end += *end == ' ';
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		value *= 1ULL << 10 * (unit - units + 1);
		end += end[1] == 'i' ? 2 : 1;
	}
	end += *end == 'B';
	end += !strcmp(end, "/s") ? 2 : 0;
	if (end == text || *end || !(value >= KIB && value <= 1e15))
		return fail(ST_USAGE,
			    "--%s needs a rate of at least 1K, such as 100M, not '%s'",
			    name, text);
	*rate = value;
	return ST_OK;
}

static int parse_region(const char *name, char *text, struct region_file *files, int *nr)
{
	char *end;
	unsigned long index = strtoul(text, &end, 10);

	if (end == text || *end != '=' || !end[1] || index > 255)
		return fail(ST_USAGE, "--%s needs NUMBER=FILE, not '%s'", name, text);
	if (*nr == MAX_REGIONS)
		return fail(ST_USAGE, "--%s can be used at most %d times", name, MAX_REGIONS);
	files[*nr].index = index;
	files[*nr].path = end + 1;
	(*nr)++;
	return ST_OK;
}

static int parse_choice(const char *name, const char *text, const char * const *choices,
			int nr, int *choice)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(text, choices[i])) {
			*choice = i;
			return ST_OK;
		}
	return fail(ST_USAGE, "--%s: '%s' is not a valid value", name, text);
}

static int parse_iommu(struct options *opt, const char *text)
{
	static const char * const names[] = { "auto", "type1", "iommufd" };
	int choice = 0, ret = parse_choice("iommu", text, names, ARRAY_LEN(names), &choice);

	opt->iommu = choice;
	return ret;
}

static int parse_goal(struct options *opt, const char *text)
{
	static const char * const names[] = { "downtime", "total-time" };
	int choice = 0, ret = parse_choice("optimize", text, names, ARRAY_LEN(names), &choice);

	opt->policy.goal = choice;
	return ret;
}

/* --- Options ------------------------------------------------------------------------ */

static int take_file_option(struct options *opt, int c, char *arg)
{
	switch (c) {
	case 'o':
		opt->output = arg;
		return ST_OK;
	case 'i':
		opt->input = arg;
		opt->has_input = true;
		return ST_OK;
	case OPT_TO:
	case OPT_LISTEN:
		opt->address = arg;
		return ST_OK;
	case OPT_FILL:
		return parse_region("fill-region", arg, opt->fill, &opt->nr_fill);
	default:
		return parse_region("dump-region", arg, opt->dump, &opt->nr_dump);
	}
}

static int take_time_option(struct options *opt, int c, const char *arg)
{
	switch (c) {
	case OPT_MAX_DOWNTIME:
		opt->policy.bound = true;
		return parse_time("max-downtime", arg, NS_PER_MS, &opt->policy.max_downtime_ns);
	case OPT_TIMEOUT:
		return parse_time("timeout", arg, NS_PER_S, &opt->timeout_ns);
	case OPT_ACK_TIMEOUT:
		return parse_time("ack-timeout", arg, NS_PER_S, &opt->ack_timeout_ns);
	default:
		return parse_time("accept-timeout", arg, NS_PER_S, &opt->accept_timeout_ns);
	}
}

static int take_option(struct options *opt, int c, char *arg)
{
	switch (c) {
	case OPT_JSON:
		opt->json = true;
		return ST_OK;
	case OPT_IOMMU:
		return parse_iommu(opt, arg);
	case OPT_OPTIMIZE:
		return parse_goal(opt, arg);
	case OPT_STOP_COPY:
		opt->stop_copy = true;
		return ST_OK;
	case OPT_HOLD:
		opt->hold = true;
		return ST_OK;
	case OPT_VERIFY:
		opt->verify = true;
		return ST_OK;
	case OPT_RESET:
		opt->reset = true;
		return ST_OK;
	case 'q':
		quiet = true;
		return ST_OK;
	case 'v':
		verbose = true;
		return ST_OK;
	case OPT_BANDWIDTH:
		return parse_rate("bandwidth", arg, &opt->bandwidth);
	case OPT_VF_TOKEN:
		return device_use_token(arg) ? ST_OK :
		       fail(ST_USAGE, "--vf-token needs a UUID, not '%s'", arg);
	case OPT_MAX_DOWNTIME:
	case OPT_TIMEOUT:
	case OPT_ACK_TIMEOUT:
	case OPT_ACCEPT_TIMEOUT:
		return take_time_option(opt, c, arg);
	default:
		return take_file_option(opt, c, arg);
	}
}

static const struct known *find_option(int c)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(known); i++)
		if (known[i].opt.val == c)
			return &known[i];
	return NULL;
}

/* Report the option in @word, for which getopt_long() returned @c, '?' or ':' */
static int bad_option(const struct options *opt, int c, const char *word)
{
	const struct known *option = find_option(optopt);

	if (c == ':' && option)
		return fail(ST_USAGE, "%s: --%s needs an argument, %s", opt->command,
			    option->opt.name, option->arg);
	if (optopt && option)
		return fail(ST_USAGE, "%s: --%s takes no argument", opt->command,
			    option->opt.name);
	if (optopt)
		return fail(ST_USAGE, "%s: there is no option -%c (see -h)", opt->command, optopt);
	return fail(ST_USAGE, "%s: there is no option %s, or it is ambiguous (see -h)",
		    opt->command, word);
}

static int take_options(struct options *opt, const struct command *command, int argc, char **argv)
{
	struct option longs[ARRAY_LEN(known) + 1] = { };
	const struct known *option;
	int c, ret = ST_OK;
	size_t i;

	for (i = 0; i < ARRAY_LEN(known); i++)
		longs[i] = known[i].opt;
	opterr = 0;
	while (!ret && (c = getopt_long(argc, argv, ":o:i:qvhV", longs, NULL)) != -1) {
		if (c == 'h') {
			print_help(command);
			return -1;
		}
		if (c == 'V') {
			puts("vfio-migrate " VERSION);
			return -1;
		}
		if (c == '?' || c == ':')
			return bad_option(opt, c, argv[optind - 1]);
		option = find_option(c);
		if (command && !strchr(option->commands, command->letter))
			return fail(ST_USAGE, "'%s' has no option --%s", opt->command,
				    option->opt.name);
		ret = take_option(opt, c, optarg);
	}
	return ret;
}

/* --- Combinations of options ------------------------------------------------------------ */

static int check_keep(const struct options *opt)
{
	if (opt->hold && opt->run)
		return fail(ST_USAGE, "--hold and a command cannot be combined");
	if (opt->verify && (opt->hold || opt->run || opt->nr_dump))
		return fail(ST_USAGE, "--verify cannot be combined with other uses");
	if (opt->hold || opt->run || opt->nr_dump || opt->verify)
		return ST_OK;
	return fail(ST_USAGE,
		    "the device loses its state when this program closes it: give --hold, --dump-region, --verify, or -- COMMAND");
}

static int check_options(struct options *opt, int letter)
{
	int ret = ST_OK;

	if (strchr("nr", letter) && !opt->address)
		return fail(ST_USAGE, "'%s' needs %s ADDRESS", opt->command,
			    letter == 'n' ? "--to" : "--listen");
	if (opt->address)
		ret = endpoint_check(letter == 'n' ? "--to" : "--listen", opt->address,
				     letter == 'r');
	if (ret)
		return ret;
	if (opt->stop_copy && opt->policy.bound)
		return fail(ST_USAGE,
			    "--stop-copy and --max-downtime cannot be combined: nothing is measured before the stop");
	if (strchr("lrm", letter))
		return check_keep(opt);
	if (opt->run)
		return fail(ST_USAGE, "'%s' cannot run a command", opt->command);
	return ST_OK;
}

/* "--" ends the options of this program; the command to run follows */
static int split_command(struct options *opt, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--")) {
			if (argv[i + 1])
				opt->run = argv + i + 1;
			return i;
		}
	return argc;
}

static int find_command(const char *name)
{
	size_t i;

	for (i = 0; name && i < ARRAY_LEN(commands); i++)
		if (!strcmp(name, commands[i].name))
			return i;
	return -1;
}

static void set_defaults(struct options *opt)
{
	*opt = (struct options){
		.output = "-",
		.input = "-",
		.policy.max_downtime_ns = DEFAULT_DOWNTIME_MS * NS_PER_MS,
		.timeout_ns = 10 * NS_PER_S,
		.ack_timeout_ns = 300 * NS_PER_S,
		.accept_timeout_ns = 600 * NS_PER_S,
	};
}

int options_parse(struct options *opt, int argc, char **argv)
{
	int ret, nr, i;

	set_defaults(opt);
	argc = split_command(opt, argc, argv);
	i = find_command(argc > 1 ? argv[1] : NULL);
	opt->command = i < 0 ? "vfio-migrate" : commands[i].name;
	if (i < 0 && argc > 1 && argv[1][0] != '-')
		return fail(ST_USAGE, "there is no command '%s' (see --help)", argv[1]);
	/* argv[0] for getopt_long() is the command's name */
	ret = take_options(opt, i < 0 ? NULL : &commands[i], argc - (i >= 0), argv + (i >= 0));
	if (ret)
		return ret;
	if (i < 0)
		return fail(ST_USAGE, "a command is required (see --help)");
	argv += 1 + optind;
	nr = argc - 1 - optind;
	if (opt->has_input && commands[i].letter == 'i')
		return nr ? fail(ST_USAGE, "'info' needs a device or a file, not both") : ST_OK;
	if (nr != commands[i].devices)
		return fail(ST_USAGE, "'%s' needs %d device%s, not %d", opt->command,
			    commands[i].devices, commands[i].devices == 1 ? "" : "s", nr);
	opt->device = nr > 0 ? argv[0] : NULL;
	opt->target = nr > 1 ? argv[1] : NULL;
	return check_options(opt, commands[i].letter);
}
