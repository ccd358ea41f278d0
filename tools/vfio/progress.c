// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "progress.h"
#include "util.h"

/* Maximum width of the bar, without brackets and percentage */
#define BAR_MIN		5
#define BAR_MAX		24
#define BAR_FRAME	8
#define BAR_NS		(200 * NS_PER_MS)
#define LINE_NS		NS_PER_S

static struct {
	bool		off;
	bool		drawn;		/* true while the bar is displayed */
	uint64_t	last;
	int		last_phase;
} shown = { .last_phase = -1 };

void progress_clear(void)
{
	if (shown.drawn)
		fputs("\r\033[K", stderr);
	shown.drawn = false;
}

/* --- A line ---------------------------------------------------------------------------- */

/*
 * Fields in the order of the line. If the line is too long, the last fields are left out
 * first, and the bar after the rate. The first two are always shown.
 */
enum {
	FIELD_PHASE, FIELD_TIME, FIELD_BYTES, FIELD_DIRTY, FIELD_RATE, FIELD_NR
};

/**
 * struct line - contents of the progress display
 * @field: text of each field, "" if unknown at present
 * @percent: percentage of the bar, -1 for no bar
 */
struct line {
	char	field[FIELD_NR][64];
	int	percent;
};

#define FIELD(line, which, ...)	\
	snprintf((line)->field[which], sizeof((line)->field[0]), __VA_ARGS__)

/* Format the first @nr known fields, separated by commas */
static int join(const struct line *line, int nr, char *buf, size_t size)
{
	size_t len = 0;
	int i;

	buf[0] = '\0';
	for (i = 0; i < nr && len < size; i++)
		if (line->field[i][0])
			len += snprintf(buf + len, size - len, "%s%s", len ? ", " : "",
					line->field[i]);
	return len;
}

static void add_bar(int percent, int columns, const char *text, char *buf, size_t size)
{
	int width = columns - BAR_FRAME - (int)strlen(text), filled;

	width = width > BAR_MAX ? BAR_MAX : width;
	filled = percent * width / 100;
	snprintf(buf, size, "[%.*s%*s] %3d%% %s", filled, "========================",
		 width - filled, "", percent, text);
}

/* @columns: width of the line; 0 for a line of any length without a bar */
static void render(const struct line *line, int columns, char *buf, size_t size)
{
	int bar = line->percent < 0 ? 0 : BAR_FRAME + BAR_MIN, nr = FIELD_NR;
	char text[FIELD_NR * 64];

	if (!columns) {
		join(line, nr, buf, size);
		return;
	}
	if (join(line, nr, text, sizeof(text)) > columns - bar)
		nr = FIELD_RATE;
	while (join(line, nr, text, sizeof(text)) > columns && nr > FIELD_BYTES)
		nr--;
	if (bar && (int)strlen(text) <= columns - bar)
		add_bar(line->percent, columns, text, buf, size);
	else
		snprintf(buf, size, "%.*s", columns, text);
}

static void put_phase(struct line *line, uint64_t elapsed, const char *name)
{
	unsigned long long s = elapsed / NS_PER_S;

	if (s < 3600)
		FIELD(line, FIELD_PHASE, "%llu:%02llu %s", s / 60, s % 60, name);
	else
		FIELD(line, FIELD_PHASE, "%llu:%02llu:%02llu %s", s / 3600, s / 60 % 60, s % 60,
		      name);
}

static void put_time(struct line *line, const struct transfer *t, uint64_t left)
{
	bool sending = t->phase != PHASE_WAIT && t->phase != PHASE_FINISH;
	uint64_t ns = rate_time(t->bandwidth, left);

	if (sending && left && ns != NEVER)
		FIELD(line, FIELD_TIME, "%.1f s left", ns / 1e9);
	else if (!sending && !t->acked && t->startup_ns != NEVER)
		FIELD(line, FIELD_TIME, "target ready in %.1f s", t->startup_ns / 1e9);
}

/* Show only values that are measured in this phase: nothing is sent while the target starts */
static void put_rates(struct line *line, const struct transfer *t)
{
	char text[32];

	if (t->phase == PHASE_INITIAL || t->phase == PHASE_WAIT || t->phase == PHASE_DIRTY)
		FIELD(line, FIELD_DIRTY, "%s/s dirty",
		      text_bytes(text, sizeof(text), t->dirty_rate));
	if (t->bandwidth && t->phase != PHASE_WAIT && t->phase != PHASE_FINISH)
		FIELD(line, FIELD_RATE, "%s/s", text_bytes(text, sizeof(text), t->bandwidth));
}

static void describe(const struct transfer *t, uint64_t now, struct line *line)
{
	uint64_t left = t->pending + t->in_flight, done = t->total - t->in_flight;
	char text[32];

	*line = (struct line){ .percent = done + left ? 100.0 * done / (done + left) : 0 };
	put_phase(line, now - t->began, phase_name(t->phase));
	put_time(line, t, left);
	FIELD(line, FIELD_BYTES, "%s to go", text_bytes(text, sizeof(text), left));
	put_rates(line, t);
}

void progress_line(const struct transfer *t, uint64_t now, int columns, char *buf, size_t size)
{
	struct line line;

	describe(t, now, &line);
	render(&line, columns, buf, size);
}

/* --- Showing it ------------------------------------------------------------------------- */

/* A line that wraps could not be cleared */
static int columns(void)
{
	struct winsize win;

	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &win) && win.ws_col > BAR_MIN + BAR_FRAME)
		return win.ws_col - 1;
	return 79;
}

/* Return true for a terminal that can clear a line */
static bool on_terminal(void)
{
	static int terminal = -1;
	const char *type;

	if (terminal < 0) {
		type = getenv("TERM");
		terminal = isatty(STDERR_FILENO) && type && *type && strcmp(type, "dumb");
	}
	return terminal;
}

/* Return true if the display is due for an update */
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

static void draw(const struct line *line)
{
	char text[512];

	render(line, on_terminal() ? columns() : 0, text, sizeof(text));
	if (!on_terminal()) {
		fprintf(stderr, "%s\n", text);
		return;
	}
	progress_clear();
	fputs(text, stderr);
	fflush(stderr);
	shown.drawn = true;
}

void progress_show(const struct transfer *t)
{
	struct line line;

	if (!due(t->phase))
		return;
	describe(t, now_ns(), &line);
	draw(&line);
}

static void describe_arrival(const struct arrival *arrival, uint64_t startup_ns, struct line *line)
{
	uint64_t of = max_u64(arrival->of, arrival->bytes), ns;
	char text[32];

	*line = (struct line){ .percent = of && arrival->of ? 100.0 * arrival->bytes / of : -1 };
	put_phase(line, arrival->looked - arrival->began, "arriving");
	ns = rate_time(arrival->rate.value, of - arrival->bytes);
	if (startup_ns && startup_ns != NEVER)
		FIELD(line, FIELD_TIME, "ready in %.1f s", startup_ns / 1e9);
	else if (arrival->of && arrival->rate.value >= 1 && ns != NEVER)
		FIELD(line, FIELD_TIME, "%.1f s left", ns / 1e9);
	FIELD(line, FIELD_BYTES, "%s", text_bytes(text, sizeof(text), arrival->bytes));
	if (arrival->rate.value >= 1)
		FIELD(line, FIELD_RATE, "%s/s",
		      text_bytes(text, sizeof(text), arrival->rate.value));
}

void progress_arrival(struct arrival *arrival, uint64_t bytes, uint64_t startup_ns)
{
	uint64_t now = now_ns();
	struct line line;

	if (arrival->looked) {
		rate_add(&arrival->rate, bytes - arrival->bytes, now - arrival->looked);
	} else {	/* Print nothing for short transfers */
		shown.last = now;
		arrival->began = now;
	}
	shown.last_phase = PHASE_NR;
	arrival->looked = now;
	arrival->bytes = bytes;
	if (!due(PHASE_NR))
		return;
	describe_arrival(arrival, startup_ns, &line);
	draw(&line);
}

void progress_disable(void)
{
	shown.off = true;
}
