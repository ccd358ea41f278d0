// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unit tests of the simulated IOMMU's page table. Physical addresses are made
 * up: nothing accesses them.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/visibility.h>
#include <linux/gfp.h>
#include <linux/iommu-sim.h>
#include <linux/pci.h>
#include <linux/sizes.h>

#include "pgtable.h"

#define RW	(IOMMU_SIM_READ | IOMMU_SIM_WRITE)
#define PHYS	0x123400000000ULL
#define END	BIT_ULL(IOMMU_SIM_IOVA_BITS)

/**
 * struct pt_fixture - what each test has
 * @pt: page table that is tested
 * @tables: number of tables that can still be allocated; negative for no limit
 */
struct pt_fixture {
	struct iommu_sim_pt pt;
	int tables;
};

static unsigned long *pt_alloc_limited(gfp_t gfp)
{
	struct pt_fixture *f = kunit_get_current_test()->priv;

	if (!f->tables)
		return NULL;
	f->tables--;
	return (unsigned long *)get_zeroed_page(gfp);
}

static int pt_test_init(struct kunit *test)
{
	struct pt_fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	f->tables = -1;
	test->priv = f;
	KUNIT_ASSERT_EQ(test, iommu_sim_pt_init(&f->pt), 0);
	kunit_activate_static_stub(test, iommu_sim_pt_alloc_table, pt_alloc_limited);
	return 0;
}

static void pt_test_exit(struct kunit *test)
{
	struct pt_fixture *f = test->priv;

	if (f && f->pt.top)
		iommu_sim_pt_destroy(&f->pt);
}

static struct iommu_sim_pt *pt_of(struct kunit *test)
{
	return &((struct pt_fixture *)test->priv)->pt;
}

static int pt_map(struct kunit *test, u64 iova, u64 phys, size_t pgsize, size_t n)
{
	size_t mapped = 0;
	int ret;

	ret = iommu_sim_pt_map(pt_of(test), iova, phys, pgsize, n, RW,
			       GFP_KERNEL, &mapped);
	if (!ret)
		KUNIT_EXPECT_EQ(test, mapped, pgsize * n);
	return ret;
}

static unsigned int pt_retired(struct kunit *test)
{
	LIST_HEAD(list);
	unsigned int n;

	iommu_sim_pt_take_retired(pt_of(test), &list);
	n = list_count_nodes(&list);
	iommu_sim_pt_free_retired(&list);
	return n;
}

static int pt_write(struct kunit *test, u64 iova)
{
	phys_addr_t phys;

	return iommu_sim_pt_access(pt_of(test), iova, true, &phys);
}

static unsigned int pt_count_dirty(struct kunit *test, u64 iova, u64 last, bool clear)
{
	unsigned int n = 0;
	size_t size;

	while ((size = iommu_sim_pt_next_dirty(pt_of(test), &iova, last, clear))) {
		iova += size;
		n++;
	}
	return n;
}

/* ---- map and unmap --------------------------------------------------------------- */

static const size_t page_sizes[] = { SZ_4K, SZ_2M, SZ_1G };

static void pt_map_and_unmap(struct kunit *test)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(page_sizes); i++) {
		size_t size = page_sizes[i];
		u64 phys = PHYS & ~(size - 1), iova = 3ULL * SZ_1G;
		struct iommu_sim_pt *pt = pt_of(test);

		KUNIT_EXPECT_EQ(test, pt_map(test, iova, phys, size, 3), 0);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, iova - 1), 0);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, iova + 5), phys + 5);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, iova + 3 * size - 1),
				phys + 3 * size - 1);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, iova + 3 * size), 0);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt, iova, 3 * size), 3 * size);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, iova + 5), 0);
	}
}

/* A run of pages that begins and ends within tables, and fills two in between */
static void pt_map_across_tables(struct kunit *test)
{
	u64 iova = 2 * SZ_2M - SZ_4K;
	size_t n = 2 * 512 + 2;

	KUNIT_EXPECT_EQ(test, pt_map(test, iova, PHYS, SZ_4K, n), 0);
	for (size_t i = 0; i < n; i++)
		if (iommu_sim_pt_lookup(pt_of(test), iova + i * SZ_4K) != PHYS + i * SZ_4K)
			KUNIT_FAIL(test, "page %zu is wrong", i);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), iova, n * SZ_4K), n * SZ_4K);
	/* The tables at both ends may map other ranges as well */
	KUNIT_EXPECT_EQ(test, pt_retired(test), 2);
}

/* Two tables of level 2 and 1024 of level 1, all of which are freed at once */
static void pt_tebibyte(struct kunit *test)
{
	u64 iova = BIT_ULL(40), size = BIT_ULL(40);
	struct iommu_sim_pt *pt = pt_of(test);
	u64 last = iova + size - SZ_2M;

	KUNIT_EXPECT_EQ(test, pt_map(test, iova, PHYS & ~(SZ_2M - 1ULL), SZ_2M, size / SZ_2M), 0);
	KUNIT_EXPECT_EQ(test, pt_write(test, last), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, iova, iova + size - 1, true), 1);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, iova, iova + size - 1, true), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt, iova, size), size);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt, last), 0);
	KUNIT_EXPECT_EQ(test, pt_retired(test), 2 + 1024);
}

static void pt_unmap_stops_at_a_hole(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_4K, 3), 0);
	KUNIT_EXPECT_EQ(test, pt_map(test, 4 * SZ_4K, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, SZ_2M), 3 * SZ_4K);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), 4 * SZ_4K), PHYS);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), SZ_1G, SZ_1G), 0);
	/* Less than a page is nothing */
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 4 * SZ_4K, 100), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 4 * SZ_4K + 8, SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), 4 * SZ_4K), PHYS);
}

static void pt_mapped_twice_is_refused(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, SZ_2M, PHYS, SZ_2M, 1), 0);
	KUNIT_EXPECT_EQ(test, pt_map(test, SZ_2M, PHYS, SZ_2M, 1), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, pt_map(test, SZ_2M + SZ_4K, PHYS, SZ_4K, 1), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS & ~(SZ_1G - 1ULL), SZ_1G, 1), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), SZ_2M), PHYS);
}

/* A failed map reports the bytes mapped so far, so that the caller can unmap them */
static void pt_mapped_counts_up_to_a_failure(struct kunit *test)
{
	size_t mapped = 0;

	KUNIT_EXPECT_EQ(test, pt_map(test, 5 * SZ_4K, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_map(pt_of(test), 0, PHYS, SZ_4K, 8, RW,
					       GFP_KERNEL, &mapped), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, mapped, 5 * SZ_4K);
}

/* Small pages leave empty tables behind, which do not keep a large page away */
static void pt_large_page_replaces_empty_tables(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, pt_map(test, SZ_2M, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, SZ_4K), SZ_4K);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, 0, SZ_1G, 1), -EADDRINUSE);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), SZ_2M, SZ_4K), SZ_4K);
	KUNIT_EXPECT_EQ(test, pt_retired(test), 0);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, SZ_1G, SZ_1G, 1), 0);
	/* One of level 1, two of level 0 */
	KUNIT_EXPECT_EQ(test, pt_retired(test), 3);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), SZ_2M), SZ_1G + SZ_2M);
}

/* ---- 48 bits ----------------------------------------------------------------------- */

static void pt_edges_of_48_bits(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, END - SZ_4K, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, pt_write(test, END - 1), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 1);
	KUNIT_EXPECT_EQ(test, pt_map(test, END - 2 * SZ_4K, PHYS, SZ_4K, 3), -ERANGE);
	KUNIT_EXPECT_EQ(test, pt_map(test, END, PHYS, SZ_4K, 1), -ERANGE);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, 0, SZ_1G, SIZE_MAX / SZ_1G), -ERANGE);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, 0, BIT_ULL(39), 1), -ERANGE);
	KUNIT_EXPECT_EQ(test, pt_write(test, END), -EFAULT);
	KUNIT_EXPECT_EQ(test, pt_write(test, U64_MAX), -EFAULT);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), END), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), END, SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), END - SZ_4K, 2 * SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), END - SZ_4K, SZ_4K), SZ_4K);
}

/* 256 TiB in 1 GiB pages: all that there is */
static void pt_all_of_48_bits(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, 0, SZ_1G, END / SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), END - 1), END - 1);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, END), END);
	KUNIT_EXPECT_EQ(test, pt_retired(test), 512);
}

/* ---- permissions and dirty bits ------------------------------------------------------ */

static void pt_permissions(struct kunit *test)
{
	struct iommu_sim_pt *pt = pt_of(test);
	size_t mapped = 0;
	phys_addr_t phys;

	for (unsigned long perm = 0; perm <= RW; perm++) {
		u64 iova = perm * SZ_4K;

		KUNIT_EXPECT_EQ(test, iommu_sim_pt_map(pt, iova, PHYS + iova, SZ_4K, 1, perm,
						       GFP_KERNEL, &mapped), 0);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_access(pt, iova, false, &phys),
				perm & IOMMU_SIM_READ ? 0 : -EFAULT);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_access(pt, iova + 7, true, &phys),
				perm & IOMMU_SIM_WRITE ? 0 : -EFAULT);
		if (perm & IOMMU_SIM_WRITE)
			KUNIT_EXPECT_EQ(test, phys, PHYS + iova + 7);
	}
	/* A write that was refused makes nothing dirty */
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, SZ_2M, false), 2);
}

static void pt_dirty_is_exact(struct kunit *test)
{
	static const unsigned int written[] = { 0, 1, 511, 512, 700, 1535 };
	struct iommu_sim_pt *pt = pt_of(test);
	u64 iova = 0;

	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_4K, 3 * 512), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(written); i++)
		KUNIT_EXPECT_EQ(test, pt_write(test, written[i] * SZ_4K + 100), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(written); i++) {
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_next_dirty(pt, &iova, U64_MAX, false), SZ_4K);
		KUNIT_EXPECT_EQ(test, iova, written[i] * SZ_4K);
		iova += SZ_4K;
	}
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_next_dirty(pt, &iova, U64_MAX, false), 0);
	/* The range counts, and only it is cleared */
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, SZ_4K, 512 * SZ_4K - 1, true), 2);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 4);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 0);
}

static void pt_reading_makes_nothing_dirty(struct kunit *test)
{
	phys_addr_t phys;

	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_2M, 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_access(pt_of(test), 0, false, &phys), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 0);
	KUNIT_EXPECT_EQ(test, pt_write(test, SZ_2M - 1), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 1);
}

/* A page that is mapped anew is clean, whatever was there */
static void pt_unmap_forgets_dirty(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, pt_write(test, 0), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, SZ_4K), SZ_4K);
	KUNIT_EXPECT_EQ(test, pt_write(test, 0), -EFAULT);
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, PHYS, SZ_4K, 1), 0);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 0);
}

/* ---- splitting ------------------------------------------------------------------------- */

static void pt_split_keeps_the_rest(struct kunit *test)
{
	u64 hole = 3 * SZ_2M + 5 * SZ_4K;

	KUNIT_EXPECT_EQ(test, pt_map(test, 0, SZ_1G, SZ_1G, 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), hole, SZ_4K), SZ_4K);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), hole), 0);
	for (u64 iova = 0; iova < SZ_1G; iova += SZ_4K)
		if (iova != hole && iommu_sim_pt_lookup(pt_of(test), iova) != SZ_1G + iova)
			KUNIT_FAIL(test, "%#llx is wrong", iova);
	KUNIT_EXPECT_EQ(test, pt_write(test, hole), -EFAULT);
	KUNIT_EXPECT_EQ(test, pt_write(test, hole - 1), 0);
	/* The rest is unmapped as it would be without the split */
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, hole), hole);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), hole + SZ_4K, SZ_1G - hole - SZ_4K),
			SZ_1G - hole - SZ_4K);
}

static void pt_split_at_both_ends(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, SZ_1G, SZ_2M, 3), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), SZ_1M, 2 * SZ_2M), 2 * SZ_2M);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), SZ_1M - 1), SZ_1G + SZ_1M - 1);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), SZ_1M), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), 2 * SZ_2M + SZ_1M - 1), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(pt_of(test), 2 * SZ_2M + SZ_1M),
			SZ_1G + 2 * SZ_2M + SZ_1M);
}

static void pt_split_keeps_dirty(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, pt_map(test, 0, SZ_1G, SZ_2M, 2), 0);
	KUNIT_EXPECT_EQ(test, pt_write(test, 0), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(pt_of(test), 0, SZ_4K), SZ_4K);
	KUNIT_EXPECT_EQ(test, pt_count_dirty(test, 0, U64_MAX, true), 511);
}

/* ---- out of memory ----------------------------------------------------------------------- */

static void pt_map_without_memory(struct kunit *test)
{
	struct pt_fixture *f = test->priv;

	/* A table of level 2, of level 1, of level 0, and the next of level 0 */
	for (int n = 0; n < 4; n++) {
		u64 iova = n * BIT_ULL(39);
		size_t mapped = 0;

		f->tables = n;
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_map(&f->pt, iova, PHYS, SZ_4K, 513, RW,
						       GFP_KERNEL, &mapped), -ENOMEM);
		KUNIT_EXPECT_EQ(test, mapped, n < 3 ? 0 : SZ_2M);
		KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(&f->pt, iova, mapped), mapped);
		/* With memory, the same mapping succeeds after the failure */
		f->tables = -1;
		KUNIT_EXPECT_EQ(test, pt_map(test, iova, PHYS, SZ_4K, 513), 0);
	}
}

static void pt_init_without_memory(struct kunit *test)
{
	struct pt_fixture *f = test->priv;
	struct iommu_sim_pt pt;

	f->tables = 0;
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_init(&pt), -ENOMEM);
}

/* Nothing stays mapped that was to be unmapped; rather more is unmapped */
static void pt_split_without_memory(struct kunit *test)
{
	struct pt_fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, pt_map(test, 0, SZ_1G, SZ_1G, 2), 0);
	f->tables = 0;
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(&f->pt, SZ_2M, SZ_4K), SZ_1G - SZ_2M);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(&f->pt, 0), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(&f->pt, SZ_1G - 1), 0);
	/* The first of the two tables that this needs */
	f->tables = 1;
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_unmap(&f->pt, SZ_1G + SZ_4K, SZ_4K), SZ_2M - SZ_4K);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(&f->pt, SZ_1G), 0);
	KUNIT_EXPECT_EQ(test, iommu_sim_pt_lookup(&f->pt, SZ_1G + SZ_2M), SZ_2G + SZ_2M);
}

static struct kunit_case pt_cases[] = {
	KUNIT_CASE(pt_map_and_unmap),
	KUNIT_CASE(pt_map_across_tables),
	KUNIT_CASE(pt_tebibyte),
	KUNIT_CASE(pt_unmap_stops_at_a_hole),
	KUNIT_CASE(pt_mapped_twice_is_refused),
	KUNIT_CASE(pt_mapped_counts_up_to_a_failure),
	KUNIT_CASE(pt_large_page_replaces_empty_tables),
	KUNIT_CASE(pt_edges_of_48_bits),
	KUNIT_CASE(pt_all_of_48_bits),
	KUNIT_CASE(pt_permissions),
	KUNIT_CASE(pt_dirty_is_exact),
	KUNIT_CASE(pt_reading_makes_nothing_dirty),
	KUNIT_CASE(pt_unmap_forgets_dirty),
	KUNIT_CASE(pt_split_keeps_the_rest),
	KUNIT_CASE(pt_split_at_both_ends),
	KUNIT_CASE(pt_split_keeps_dirty),
	KUNIT_CASE(pt_map_without_memory),
	KUNIT_CASE(pt_init_without_memory),
	KUNIT_CASE(pt_split_without_memory),
	{}
};

static struct kunit_suite pt_suite = {
	.name = "iommu_sim_pgtable",
	.init = pt_test_init,
	.exit = pt_test_exit,
	.test_cases = pt_cases,
};

/* ---- host bridges --------------------------------------------------------------------------- */

static void bridge_of_hardware_is_refused(struct kunit *test)
{
	struct pci_bus *bus = NULL;
	unsigned int n = 0;

	while ((bus = pci_find_next_bus(bus))) {
		KUNIT_EXPECT_EQ(test, iommu_sim_add_bridge(pci_find_host_bridge(bus)), -EINVAL);
		n++;
	}
	if (!n)
		kunit_skip(test, "this machine has no PCI bus");
}

static void bridge_with_windows_is_refused(struct kunit *test)
{
	struct pci_host_bridge *bridge = pci_alloc_host_bridge(0);
	struct resource busn = DEFINE_RES_NAMED(0, 1, "bus", IORESOURCE_BUS);
	struct resource mem = DEFINE_RES_MEM(SZ_1G, SZ_1M);

	KUNIT_ASSERT_NOT_NULL(test, bridge);
	pci_add_resource(&bridge->windows, &busn);
	KUNIT_EXPECT_EQ(test, iommu_sim_add_bridge(bridge), 0);
	iommu_sim_remove_bridge(bridge);
	pci_add_resource(&bridge->windows, &mem);
	KUNIT_EXPECT_EQ(test, iommu_sim_add_bridge(bridge), -EINVAL);
	pci_free_host_bridge(bridge);
}

static struct kunit_case bridge_cases[] = {
	KUNIT_CASE(bridge_of_hardware_is_refused),
	KUNIT_CASE(bridge_with_windows_is_refused),
	{}
};

static struct kunit_suite bridge_suite = {
	.name = "iommu_sim_bridge",
	.test_cases = bridge_cases,
};

kunit_test_suites(&pt_suite, &bridge_suite);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit tests of the simulated IOMMU");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
