// SPDX-License-Identifier: GPL-2.0-only
/* The summary of a transfer. */
#include "json.h"
#include "transfer.h"
#include "util.h"

const char *phase_name(enum phase phase)
{
	static const char * const names[PHASE_NR] = {
		[PHASE_INITIAL]	= "initial",
		[PHASE_WAIT]	= "waiting",
		[PHASE_DIRTY]	= "dirty",
		[PHASE_STOPPED]	= "stopped",
		[PHASE_FINISH]	= "finishing",
	};

	return names[phase];
}

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return ns ? bytes * 1e9 / ns : 0;
}

static uint64_t rate(const struct transfer *t)
{
	return per_second(t->total, t->ended - t->began);
}

static void summary_json(const struct transfer *t, const char *what)
{
	struct json json;

	json_begin(&json, report_file());
	json_string(&json, "command", what);
	json_number(&json, "downtime_ns", t->ended - t->stopped);
	if (t->promised_ns != NEVER)
		json_number(&json, "expected_downtime_ns", t->promised_ns);
	json_number(&json, "total_ns", t->ended - t->began);
	json_number(&json, "ack_wait_ns", t->wait_ns);
	json_bool(&json, "acked_while_running", t->acked_running);
	json_open(&json, "bytes");
	json_number(&json, "initial", t->bytes[PHASE_INITIAL]);
	json_number(&json, "dirty", t->bytes[PHASE_DIRTY]);
	json_number(&json, "stopped", t->bytes[PHASE_STOPPED]);
	json_number(&json, "total", t->total);
	json_close(&json);
	json_number(&json, "bytes_per_second", rate(t));
	json_end(&json);
}

static void summary_text(const struct transfer *t)
{
	FILE *out = report_file();
	char a[32], b[32], c[32];

	fprintf(out, "device downtime  %s", text_ns(a, sizeof(a), t->ended - t->stopped));
	if (t->promised_ns != NEVER)
		fprintf(out, " (%s expected)", text_ns(b, sizeof(b), t->promised_ns));
	fprintf(out, "\n");
	if (!t->marked)
		fprintf(out, "wait for ack     none, there was no pre-copy\n");
	else
		fprintf(out, "wait for ack     %s%s\n", text_ns(a, sizeof(a), t->wait_ns),
			t->acked_running ? " while the source was running" :
			"; the source was stopped without it");
	fprintf(out, "pre-copy         %s initial, %s dirty\n",
		text_bytes(a, sizeof(a), t->bytes[PHASE_INITIAL]),
		text_bytes(b, sizeof(b), t->bytes[PHASE_DIRTY]));
	fprintf(out, "while stopped    %s\n",
		text_bytes(a, sizeof(a), t->bytes[PHASE_STOPPED]));
	fprintf(out, "total            %s in %s, %s/s\n", text_bytes(a, sizeof(a), t->total),
		text_ns(b, sizeof(b), t->ended - t->began), text_bytes(c, sizeof(c), rate(t)));
}

static int summary_end(void)
{
	FILE *out = report_file();

	if (!fflush(out) && !ferror(out))
		return ST_OK;
	return fail_errno(ST_AFTER, "the summary cannot be printed");
}

int transfer_summary(const struct transfer *t, const char *what, bool json)
{
	if (json)
		summary_json(t, what);
	else if (!quiet)
		summary_text(t);
	return summary_end();
}

int arrival_summary(const char *what, const char *device, uint64_t bytes, uint64_t ns, bool json)
{
	struct json out;
	char text[32];

	say("%s has loaded %s and runs", device, text_bytes(text, sizeof(text), bytes));
	if (!json)
		return ST_OK;
	json_begin(&out, report_file());
	json_string(&out, "command", what);
	json_number(&out, "total_ns", ns);
	json_open(&out, "bytes");
	json_number(&out, "total", bytes);
	json_close(&out);
	json_number(&out, "bytes_per_second", per_second(bytes, ns));
	json_end(&out);
	return summary_end();
}

void failure_summary(const char *what, int status)
{
	const char *why = all_failures();
	struct json json;

	if (status > ST_SIGNAL && status == interrupted())
		why = "interrupted";
	if (!*why && status == ST_USAGE)
		why = "the command line is wrong";
	/* The exit status of the COMMAND is not a failure of this program */
	if (!status || !*why)
		return;
	json_begin(&json, report_file());
	json_string(&json, "command", what);
	json_number(&json, "status", status);
	json_string(&json, "error", why);
	json_end(&json);
	fflush(report_file());
}
