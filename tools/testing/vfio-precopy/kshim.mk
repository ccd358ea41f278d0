# SPDX-License-Identifier: GPL-2.0-only
#
# For Makefiles that build the driver's stream code in user space. Each header
# of the kernel that it asks for leads to the one shim, behind the C library's
# own of the same name if there is one.
#
# In:  $(driver), $(out), KSHIM_USERS (files in $(driver), mig/stream.c and its headers
#      unless set), $(Q)
# Out: KSHIM_CFLAGS, KSHIM_HEADERS (to depend on)

kshim_dir := $(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))
KSHIM_USERS ?= mig/stream.c mig/stream.h mem/units.h
kshim_names := $(shell sed -n 's/^.include <\(.*\)>$$/\1/p' $(KSHIM_USERS:%=$(driver)/%) | sort -u)

KSHIM_CFLAGS := -I$(out)/shim -I$(kshim_dir)
KSHIM_HEADERS := $(kshim_names:%=$(out)/shim/%)

$(KSHIM_HEADERS): $(out)/shim/%: $(kshim_dir)/kshim.mk
	$(Q)mkdir -p $(@D)
	$(Q)printf '%s\n' '#if __has_include_next(<$*>)' '#include_next <$*>' '#endif' '#include "kshim.h"' >$@
