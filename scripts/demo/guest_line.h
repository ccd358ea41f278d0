/* SPDX-License-Identifier: GPL-2.0-only */
/* Functions of guest_line.c, for each program that is process 1 of a guest */
#ifndef GUEST_LINE_H
#define GUEST_LINE_H

#include <linux/types.h>

/* Open the second serial port; does not return if there is none. */
void line_open(void);

/* Take one character that has arrived, if any. */
int line_read(char *c);

/* Write a line. Without @must nothing is written while the port is busy. */
__attribute__((format(printf, 2, 3)))
void say(int must, const char *fmt, ...);

/* Say why, with the text of errno, and do nothing more. */
_Noreturn void fail(const char *why);

/* The number in a word NAME=NUMBER after "--" on the kernel's command line */
__u64 argument(char **argv, const char *name, __u64 otherwise);

#endif /* GUEST_LINE_H */
