// SPDX-License-Identifier: GPL-2.0-only
/* The tracepoints of func/trace.h */

#define CREATE_TRACE_POINTS
#include "trace.h"
