/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of the conformance tests: "mig", once for each way in to a device.
 * A test is named after what a device must do; a comment behind the name has the
 * numbers of the rules that it shows, which tools/testing/vfio-precopy/conformance
 * reads. Programs include this header once, after everything else.
 *
 * VFIO_SELFTESTS_MODES, a list of modes, runs the tests in those only.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_FIXTURE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_FIXTURE_H

#include <libvfio/mig_device.h>

#include <libvfio/mig_harness.h>

static const char *mig_bdf;
/* Where the stream of mig_bdf is loaded: another device if there is one. */
static const char *mig_peer;

FIXTURE(mig) {
	struct mig_dev m;
	struct mig_stream stream;
};

FIXTURE_VARIANT(mig) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(mig, _mode) {		\
	.mode = #_mode,				\
}

FIXTURE_VARIANT_ADD_ALL_IOMMU_MODES();

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

FIXTURE_SETUP(mig)
{
	const char *why = mig_mode_missing(mig_bdf, variant->mode);

	if (why)
		SKIP(return, "%s", why);
	mig_open(&self->m, mig_bdf, variant->mode);
}

FIXTURE_TEARDOWN(mig)
{
	mig_stream_free(&self->stream);
	mig_close(&self->m);
}

/*
 * A BDF, or a path from /sys/bus/pci/devices to a device elsewhere in sysfs, such
 * as ../../mdev/devices/UUID, which libvfio would not take for one.
 */
static char **mig_get_bdfs(int *argc, char *argv[], int *nr)
{
	if (*argc < 2 || !strchr(argv[*argc - 1], '/'))
		return vfio_selftests_get_bdfs(argc, argv, nr);
	*nr = 1;
	--*argc;

	return &argv[*argc];
}

static int mig_test_main(int argc, char *argv[])
{
	static char modes[256];
	char **args, *mode, **bdfs;
	int i, nr;

	bdfs = mig_get_bdfs(&argc, argv, &nr);
	mig_bdf = bdfs[0];
	mig_peer = bdfs[nr > 1];

	/* Two more for each mode, and the NULL at the end */
	args = calloc(argc + sizeof(modes) + 1, sizeof(*args));
	VFIO_ASSERT_NOT_NULL(args);
	for (i = 0; i < argc; i++)
		args[i] = argv[i];
	if (getenv("VFIO_SELFTESTS_MODES"))
		snprintf_assert(modes, sizeof(modes), "%s",
				getenv("VFIO_SELFTESTS_MODES"));
	for (mode = strtok(modes, " ,"); mode; mode = strtok(NULL, " ,")) {
		args[i++] = "-v";
		args[i++] = mode;
	}
	args[i] = NULL;

	return test_harness_run(i, args);
}

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_FIXTURE_H */
