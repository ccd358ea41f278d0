// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "utf8.h"

/* JSON must be UTF-8: print a replacement character for each invalid byte */
static void quoted(struct json *json, const char *text)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t left = strlen(text), n;

	fputc('"', json->out);
	for (; left; p += n, left -= n) {
		n = utf8_length(p, left);
		if (*p == '"' || *p == '\\')
			fputc('\\', json->out);
		if (n)
			fwrite(p, 1, n, json->out);
		else
			fprintf(json->out, "\\u%04x", *p < 0x80 ? *p : 0xfffd);
		n = n ?: 1;
	}
	fputc('"', json->out);
}

static void name_next(struct json *json, const char *name)
{
	fprintf(json->out, "%s\n%*s", json->first ? "" : ",", 2 * json->depth, "");
	json->first = false;
	if (!name)
		return;
	quoted(json, name);
	fputs(": ", json->out);
}

static void open_with(struct json *json, const char *name, char bracket)
{
	name_next(json, name);
	fputc(bracket, json->out);
	json->depth++;
	json->first = true;
}

static void close_with(struct json *json, char bracket)
{
	json->depth--;
	if (!json->first)
		fprintf(json->out, "\n%*s", 2 * json->depth, "");
	fputc(bracket, json->out);
	json->first = false;
}

void json_begin(struct json *json, FILE *out)
{
	*json = (struct json){ .out = out, .depth = 1, .first = true };
	fputc('{', out);
}

void json_end(struct json *json)
{
	close_with(json, '}');
	fputc('\n', json->out);
}

void json_open(struct json *json, const char *name)
{
	open_with(json, name, '{');
}

void json_close(struct json *json)
{
	close_with(json, '}');
}

void json_open_array(struct json *json, const char *name)
{
	open_with(json, name, '[');
}

void json_close_array(struct json *json)
{
	close_with(json, ']');
}

void json_string(struct json *json, const char *name, const char *value)
{
	name_next(json, name);
	quoted(json, value);
}

void json_number(struct json *json, const char *name, uint64_t value)
{
	name_next(json, name);
	fprintf(json->out, "%" PRIu64, value);
}

void json_bool(struct json *json, const char *name, bool value)
{
	name_next(json, name);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json, const char *name)
{
	name_next(json, name);
	fputs("null", json->out);
}
