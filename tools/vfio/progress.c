// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "progress.h"
#include "util.h"

#define BAR_WIDTH	24
#define BAR_NS		(200 * NS_PER_MS)
#define LINE_NS		NS_PER_S

static struct {
	bool		drawn;		/* a bar is on the line */
	uint64_t	last;
	int		last_phase;
} shown = { .last_phase = -1 };

void progress_clear(void)
{
	if (shown.drawn)
		fputs("\r\033[K", stderr);
	shown.drawn = false;
}

static void describe(const struct transfer *t, char *buf, size_t size)
{
	char rate[32], left[32], dirty[32], time[32], start[48] = "";

	if (!t->acked && t->marked && t->startup_ns != NEVER)
		snprintf(start, sizeof(start), "  target ready in %s",
			 text_ns(time, sizeof(time), t->startup_ns));
	snprintf(buf, size, "%-9s %9s/s  %9s left  dirty %9s/s%s", phase_name(t->phase),
		 text_bytes(rate, sizeof(rate), t->bandwidth),
		 text_bytes(left, sizeof(left), t->pending + t->in_flight),
		 text_bytes(dirty, sizeof(dirty), t->dirty_rate), start);
}

static void draw_bar(const struct transfer *t, const char *text)
{
	uint64_t left = t->pending + t->in_flight, done = t->total - t->in_flight;
	int percent = done + left ? 100.0 * done / (done + left) : 0;
	int filled = percent * BAR_WIDTH / 100;

	struct winsize win;
	int room = 60;

	/* What does not fit on the line could not be cleared */
	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &win) && win.ws_col > BAR_WIDTH + 10)
		room = win.ws_col - BAR_WIDTH - 9;
	progress_clear();
	fprintf(stderr, "[%.*s%*s] %3d%% %.*s", filled, "========================",
		BAR_WIDTH - filled, "", percent, room, text);
	fflush(stderr);
	shown.drawn = true;
}

void progress_show(const struct transfer *t)
{
	static int terminal = -1;
	uint64_t now = now_ns();
	char text[200];

	if (quiet)
		return;
	if (terminal < 0)
		terminal = isatty(STDERR_FILENO);
	if ((int)t->phase == shown.last_phase && now - shown.last < (terminal ? BAR_NS : LINE_NS))
		return;
	shown.last = now;
	shown.last_phase = t->phase;
	describe(t, text, sizeof(text));
	if (terminal)
		draw_bar(t, text);
	else
		fprintf(stderr, "%s\n", text);
}
