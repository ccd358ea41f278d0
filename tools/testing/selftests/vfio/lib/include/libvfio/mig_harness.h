/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kselftest harness, and how long a test may take: TEST_F_TIMEOUT(fixture,
 * test, MIG_TIMEOUT). The 30 seconds of TEST_F() are too few on a debug kernel in
 * an emulated machine, which can be a hundred times as slow as another. A test that
 * hangs is ended all the same. Programs include this header once, after everything
 * else.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H

#include <kselftest_harness.h>

#define MIG_TIMEOUT	120	/* seconds */

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_HARNESS_H */
