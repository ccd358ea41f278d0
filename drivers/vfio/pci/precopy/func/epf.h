/* SPDX-License-Identifier: GPL-2.0-only */
/* The registers of pci-epf-test, with which Linux's pci_endpoint_test drives the engine. */
#ifndef PRECOPY_EPF_H
#define PRECOPY_EPF_H

#include <linux/types.h>

struct precopy_device;
struct precopy_engine;
struct precopy_epf;
struct precopy_step;

u64 precopy_epf_caps(const struct precopy_engine *engine);
bool precopy_epf_active(const struct precopy_engine *engine);
void precopy_epf_start(struct precopy_engine *engine, u32 command);
bool precopy_epf_possible(const struct precopy_epf *epf);
void precopy_epf_plan(const struct precopy_engine *engine,
		      struct precopy_step *step);
int precopy_epf_run(struct precopy_device *pcd, struct precopy_step *step,
		    void *buf);
void precopy_epf_done(struct precopy_engine *engine,
		      const struct precopy_step *step, int ret);

#endif /* PRECOPY_EPF_H */
