/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kselftest harness, with more time for each test than it gives by itself: a
 * kernel that looks for mistakes takes a hundred times as long as another when the
 * machine is emulated, and shares its processors with others. Whatever hangs is
 * ended all the same. Programs include this once, after everything else.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H

#include <kselftest_harness.h>

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120	/* seconds */

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H */
