/* SPDX-License-Identifier: GPL-2.0-only */
/* A minimal JSON writer. */
#ifndef VFIO_MIGRATE_JSON_H
#define VFIO_MIGRATE_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
	FILE	*out;
	int	depth;
	bool	first;
};

/* Begin and end the output object. A @name of NULL is an element of an array. */
void json_begin(struct json *json, FILE *out);
void json_end(struct json *json);

void json_open(struct json *json, const char *name);
void json_close(struct json *json);
void json_open_array(struct json *json, const char *name);
void json_close_array(struct json *json);

void json_string(struct json *json, const char *name, const char *value);
void json_number(struct json *json, const char *name, uint64_t value);
void json_bool(struct json *json, const char *name, bool value);
void json_null(struct json *json, const char *name);

#endif /* VFIO_MIGRATE_JSON_H */
