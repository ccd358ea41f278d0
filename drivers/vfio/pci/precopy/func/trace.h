/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints of the engine: what a VMM does with the DMA log, and what it has set up
 * when the device stops and when it runs again. See mig/trace.h.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM precopy

#if !defined(PRECOPY_FUNC_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PRECOPY_FUNC_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>

TRACE_EVENT(precopy_dma_log_start,
	    TP_PROTO(struct device *dev, unsigned int ranges),
	    TP_ARGS(dev, ranges),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(unsigned int, ranges)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->ranges = ranges;),
	    TP_printk("%s ranges=%u", __get_str(dev), __entry->ranges)
);

/* The user has read the log of a range. @pages: pages that were reported */
TRACE_EVENT(precopy_dma_log_report,
	    TP_PROTO(struct device *dev, u64 iova, u64 length, u64 pages),
	    TP_ARGS(dev, iova, length, pages),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u64, iova)
			     __field(u64, length)
			     __field(u64, pages)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->iova = iova;
			   __entry->length = length;
			   __entry->pages = pages;),
	    TP_printk("%s iova=0x%llx length=%llu pages=%llu", __get_str(dev),
		      __entry->iova, __entry->length, __entry->pages)
);

/*
 * The log was stopped, or a reset has ended it. @unread: pages that were written and
 * never reported; @first: address of the first one
 */
TRACE_EVENT(precopy_dma_log_end,
	    TP_PROTO(struct device *dev, u64 unread, u64 first),
	    TP_ARGS(dev, unread, first),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(u64, unread)
			     __field(u64, first)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->unread = unread;
			   __entry->first = first;),
	    TP_printk("%s unread=%llu first=0x%llx", __get_str(dev),
		      __entry->unread, __entry->first)
);

/*
 * @master: COMMAND's bus master bit is 1 and the function is in D0
 * @vectors: bitmap of the vectors that have an eventfd
 * @pending: bitmap of the interrupts that are kept
 */
DECLARE_EVENT_CLASS(precopy_engine,
		    TP_PROTO(struct device *dev, bool master, u32 vectors,
			     u32 pending),
		    TP_ARGS(dev, master, vectors, pending),
		    TP_STRUCT__entry(__string(dev, dev_name(dev))
				     __field(bool, master)
				     __field(u32, vectors)
				     __field(u32, pending)),
		    TP_fast_assign(__assign_str(dev);
				   __entry->master = master;
				   __entry->vectors = vectors;
				   __entry->pending = pending;),
		    TP_printk("%s master=%d vectors=0x%x pending=0x%x",
			      __get_str(dev), __entry->master,
			      __entry->vectors, __entry->pending)
);

/* The engine begins no step any more */
DEFINE_EVENT(precopy_engine, precopy_quiesce,
	     TP_PROTO(struct device *dev, bool master, u32 vectors, u32 pending),
	     TP_ARGS(dev, master, vectors, pending)
);

/* The engine acts again; interrupts that are kept are delivered now */
DEFINE_EVENT(precopy_engine, precopy_resume,
	     TP_PROTO(struct device *dev, bool master, u32 vectors, u32 pending),
	     TP_ARGS(dev, master, vectors, pending)
);

#endif /* PRECOPY_FUNC_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH func
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
