/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints of a migration: state changes, records, startup. See mem/trace.h. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM precopy

#if !defined(PRECOPY_MIG_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PRECOPY_MIG_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>
#include <linux/vfio.h>

#include "startup.h"
#include "states.h"
#include "stream.h"

/* Export the values to tools that parse the format files */
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_ERROR);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_STOP);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_RUNNING);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_STOP_COPY);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_RESUMING);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_RUNNING_P2P);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_PRE_COPY);
TRACE_DEFINE_ENUM(VFIO_DEVICE_STATE_PRE_COPY_P2P);
TRACE_DEFINE_ENUM(PRECOPY_REC_PREFACE);
TRACE_DEFINE_ENUM(PRECOPY_REC_DATA);
TRACE_DEFINE_ENUM(PRECOPY_REC_ZERO);
TRACE_DEFINE_ENUM(PRECOPY_REC_INITIAL_END);
TRACE_DEFINE_ENUM(PRECOPY_REC_STATE);
TRACE_DEFINE_ENUM(PRECOPY_REC_END);
TRACE_DEFINE_ENUM(PRECOPY_REC_ENGINE);
TRACE_DEFINE_ENUM(PRECOPY_REC_WINDOW);
TRACE_DEFINE_ENUM(PRECOPY_STARTUP_WAITING);
TRACE_DEFINE_ENUM(PRECOPY_STARTUP_STARTING);
TRACE_DEFINE_ENUM(PRECOPY_STARTUP_READY);
TRACE_DEFINE_ENUM(PRECOPY_STARTUP_FAILED);

#define precopy_show_state(state) \
	__print_symbolic(state, PRECOPY_STATE_NAMES)

#define precopy_show_record(type) \
	__print_symbolic(type, \
			 { PRECOPY_REC_PREFACE, "PREFACE" }, \
			 { PRECOPY_REC_DATA, "DATA" }, \
			 { PRECOPY_REC_ZERO, "ZERO" }, \
			 { PRECOPY_REC_INITIAL_END, "INITIAL_END" }, \
			 { PRECOPY_REC_STATE, "STATE" }, \
			 { PRECOPY_REC_END, "END" }, \
			 { PRECOPY_REC_ENGINE, "ENGINE" }, \
			 { PRECOPY_REC_WINDOW, "WINDOW" })

#define precopy_show_phase(phase) \
	__print_symbolic(phase, \
			 { PRECOPY_STARTUP_WAITING, "waiting" }, \
			 { PRECOPY_STARTUP_STARTING, "starting" }, \
			 { PRECOPY_STARTUP_READY, "ready" }, \
			 { PRECOPY_STARTUP_FAILED, "failed" })

TRACE_EVENT(precopy_arc,
	    TP_PROTO(struct device *dev, int from, int to, int ret),
	    TP_ARGS(dev, from, to, ret),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(int, from)
			     __field(int, to)
			     __field(int, ret)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->from = from;
			   __entry->to = to;
			   __entry->ret = ret;),
	    TP_printk("%s from=%s to=%s ret=%d", __get_str(dev),
		      precopy_show_state(__entry->from),
		      precopy_show_state(__entry->to), __entry->ret)
);

/*
 * A record of the stream. @offset and @length are the range of memory in bytes for DATA
 * and ZERO. For other types @length is that of the record, and 0 for INITIAL_END.
 */
DECLARE_EVENT_CLASS(precopy_record,
		    TP_PROTO(struct device *dev, int type, u64 offset, u64 length),
		    TP_ARGS(dev, type, offset, length),
		    TP_STRUCT__entry(__string(dev, dev_name(dev))
				     __field(int, type)
				     __field(u64, offset)
				     __field(u64, length)),
		    TP_fast_assign(__assign_str(dev);
				   __entry->type = type;
				   __entry->offset = offset;
				   __entry->length = length;),
		    TP_printk("%s type=%s offset=0x%llx length=%llu", __get_str(dev),
			      precopy_show_record(__entry->type), __entry->offset,
			      __entry->length)
);

/* A record was added to the buffer, to be returned by read() */
DEFINE_EVENT(precopy_record, precopy_save_record,
	     TP_PROTO(struct device *dev, int type, u64 offset, u64 length),
	     TP_ARGS(dev, type, offset, length)
);

/* A record has arrived and was verified */
DEFINE_EVENT(precopy_record, precopy_load_record,
	     TP_PROTO(struct device *dev, int type, u64 offset, u64 length),
	     TP_ARGS(dev, type, offset, length)
);

TRACE_EVENT(precopy_startup,
	    TP_PROTO(struct device *dev, int phase),
	    TP_ARGS(dev, phase),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(int, phase)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->phase = phase;),
	    TP_printk("%s phase=%s", __get_str(dev),
		      precopy_show_phase(__entry->phase))
);

#endif /* PRECOPY_MIG_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH mig
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
