/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints of the memory; those of migrations are in mig/trace.h. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM precopy

#if !defined(PRECOPY_MEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define PRECOPY_MEM_TRACE_H

#include <linux/device.h>
#include <linux/tracepoint.h>

TRACE_EVENT(precopy_arm,
	    TP_PROTO(struct device *dev, unsigned long pages),
	    TP_ARGS(dev, pages),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(unsigned long, pages)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->pages = pages;),
	    TP_printk("%s pages=%lu", __get_str(dev), __entry->pages)
);

TRACE_EVENT(precopy_collect,
	    TP_PROTO(struct device *dev, unsigned long unit, unsigned long pages),
	    TP_ARGS(dev, unit, pages),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))
			     __field(unsigned long, unit)
			     __field(unsigned long, pages)),
	    TP_fast_assign(__assign_str(dev);
			   __entry->unit = unit;
			   __entry->pages = pages;),
	    TP_printk("%s unit=%lu pages=%lu", __get_str(dev), __entry->unit,
		      __entry->pages)
);

TRACE_EVENT(precopy_disarm,
	    TP_PROTO(struct device *dev),
	    TP_ARGS(dev),
	    TP_STRUCT__entry(__string(dev, dev_name(dev))),
	    TP_fast_assign(__assign_str(dev);),
	    TP_printk("%s", __get_str(dev))
);

#endif /* PRECOPY_MEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH mem
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
