// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "progress.h"
#include "util.h"

/* As wide as the text lets it be; around it are brackets and a percentage */
#define BAR_MIN		5
#define BAR_MAX		24
#define BAR_FRAME	8
#define BAR_NS		(200 * NS_PER_MS)
#define LINE_NS		NS_PER_S

static struct {
	bool		off;
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
	char rate[32], left[32], dirty[32], start[48] = "";

	if (!t->acked && t->marked && t->startup_ns != NEVER)
		snprintf(start, sizeof(start), ", target ready in %.1f s", t->startup_ns / 1e9);
	snprintf(buf, size, "%s, %s/s, %s left, %s/s dirty%s", phase_name(t->phase),
		 text_bytes(rate, sizeof(rate), t->bandwidth),
		 text_bytes(left, sizeof(left), t->pending + t->in_flight),
		 text_bytes(dirty, sizeof(dirty), t->dirty_rate), start);
}

/* What does not fit on the line could not be cleared */
static int columns(void)
{
	struct winsize win;

	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &win) && win.ws_col > BAR_MIN + BAR_FRAME)
		return win.ws_col - 1;
	return 79;
}

static bool on_terminal(void)
{
	static int terminal = -1;

	if (terminal < 0)
		terminal = isatty(STDERR_FILENO);
	return terminal;
}

/* Is it time to show something again? */
static bool due(int phase)
{
	uint64_t now = now_ns();

	if (quiet || shown.off)
		return false;
	if (phase == shown.last_phase && now - shown.last < (on_terminal() ? BAR_NS : LINE_NS))
		return false;
	shown.last = now;
	shown.last_phase = phase;
	return true;
}

static void draw_bar(int percent, const char *text)
{
	int room = columns() - BAR_FRAME, width = room - (int)strlen(text), filled;

	width = width > BAR_MAX ? BAR_MAX : width < BAR_MIN ? BAR_MIN : width;
	filled = percent * width / 100;
	fprintf(stderr, "[%.*s%*s] %3d%% %.*s", filled, "========================",
		width - filled, "", percent, room - width, text);
}

/* @percent: of a bar, or -1 for none */
static void draw(int percent, const char *text)
{
	if (!on_terminal()) {
		fprintf(stderr, "%s\n", text);
		return;
	}
	progress_clear();
	if (percent < 0)
		fprintf(stderr, "%.*s", columns(), text);
	else
		draw_bar(percent, text);
	fflush(stderr);
	shown.drawn = true;
}

void progress_show(const struct transfer *t)
{
	uint64_t left = t->pending + t->in_flight, done = t->total - t->in_flight;
	char text[200];

	if (!due(t->phase))
		return;
	describe(t, text, sizeof(text));
	draw(done + left ? 100.0 * done / (done + left) : 0, text);
}

void progress_arrival(struct arrival *arrival, uint64_t bytes, uint64_t startup_ns)
{
	char text[200], got[32], rate[32], start[48] = "";
	uint64_t now = now_ns();

	if (arrival->looked)
		rate_add(&arrival->rate, bytes - arrival->bytes, now - arrival->looked);
	else	/* What is over soon is not worth a word */
		shown.last = now;
	shown.last_phase = PHASE_NR;
	arrival->looked = now;
	arrival->bytes = bytes;
	if (!due(PHASE_NR))
		return;
	if (startup_ns && startup_ns != NEVER)
		snprintf(start, sizeof(start), ", ready in %.1f s", startup_ns / 1e9);
	snprintf(text, sizeof(text), "arriving, %s, %s/s%s",
		 text_bytes(got, sizeof(got), bytes),
		 text_bytes(rate, sizeof(rate), arrival->rate.value), start);
	draw(arrival->of ? 100.0 * min_u64(bytes, arrival->of) / arrival->of : -1, text);
}

void progress_disable(void)
{
	shown.off = true;
}
