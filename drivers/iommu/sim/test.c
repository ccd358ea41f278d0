// SPDX-License-Identifier: GPL-2.0-only
/*
 * iommu-sim-test: DMA through the simulated IOMMU on request, for tests.
 *
 * A write of "ADDRESS r|w IOVA LENGTH BYTE [TIMES]" to the file
 * iommu-sim-test/dma in debugfs makes the function with this PCI address read or
 * write the range by DMA. TIMES is decimal, all other numbers are hexadecimal. A
 * write stores BYTE to each byte of the range. A read fails with EILSEQ if any
 * byte of the range is not BYTE.
 *
 * The file delay_us is for tests of races. It is the time in us, at most 10 ms,
 * that DMA waits in each page between the translation and the access.
 */
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/device.h>
#include <linux/iommu-sim.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "test.h"

/**
 * struct sim_test_dma - a requested DMA
 * @name: PCI address of the function, such as 5100:00:00.0
 * @op: 'r' or 'w'
 * @iova: I/O virtual address
 * @len: number of bytes, at most 1 MiB
 * @byte: value of each byte
 * @times: number of repetitions
 */
struct sim_test_dma {
	char name[16];
	char op;
	u64 iova;
	size_t len;
	u8 byte;
	unsigned int times;
};

static struct dentry *sim_test_dir;

static int sim_test_parse(const char *cmd, struct sim_test_dma *dma)
{
	dma->times = 1;
	if (sscanf(cmd, "%15s %c %llx %zx %hhx %u", dma->name, &dma->op,
		   &dma->iova, &dma->len, &dma->byte, &dma->times) < 5)
		return -EINVAL;
	if ((dma->op != 'r' && dma->op != 'w') || !dma->len || dma->len > SZ_1M)
		return -EINVAL;
	return 0;
}

static int sim_test_once(struct device *dev, struct sim_test_dma *dma, void *buf)
{
	bool write = dma->op == 'w';
	int ret;

	ret = iommu_sim_dma_rw(dev, dma->iova, buf, dma->len, write);
	if (ret < 0 || write)
		return min(ret, 0);
	return memchr_inv(buf, dma->byte, dma->len) ? -EILSEQ : 0;
}

static int sim_test_run(struct device *dev, struct sim_test_dma *dma)
{
	void *buf __free(kvfree) = kvmalloc(dma->len, GFP_KERNEL);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	memset(buf, dma->byte, dma->len);
	/* A function that has a driver is not being removed */
	guard(device)(dev);
	if (!dev->driver)
		return -ENODEV;
	while (dma->times-- && !ret && !fatal_signal_pending(current))
		ret = sim_test_once(dev, dma, buf);
	return ret;
}

static ssize_t sim_test_dma_write(struct file *file, const char __user *ubuf,
				  size_t count, loff_t *ppos)
{
	char *cmd __free(kfree) = NULL;
	struct sim_test_dma dma;
	struct device *dev;
	int ret;

	if (count > SZ_4K)
		return -EINVAL;
	cmd = memdup_user_nul(ubuf, count);
	if (IS_ERR(cmd))
		return PTR_ERR(no_free_ptr(cmd));
	ret = sim_test_parse(cmd, &dma);
	if (ret)
		return ret;
	dev = bus_find_device_by_name(&pci_bus_type, NULL, dma.name);
	if (!dev)
		return -ENODEV;
	ret = sim_test_run(dev, &dma);
	put_device(dev);
	return ret ?: count;
}

static const struct file_operations sim_test_dma_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = sim_test_dma_write,
};

static int __init sim_test_init(void)
{
	sim_test_dir = debugfs_create_dir("iommu-sim-test", NULL);
	debugfs_create_file("dma", 0200, sim_test_dir, NULL, &sim_test_dma_fops);
	debugfs_create_u32("delay_us", 0600, sim_test_dir, &iommu_sim_delay_us);
	return 0;
}
module_init(sim_test_init);

static void __exit sim_test_exit(void)
{
	debugfs_remove(sim_test_dir);
	WRITE_ONCE(iommu_sim_delay_us, 0);
}
module_exit(sim_test_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Test access to the simulated IOMMU");
/* Taints the kernel */
MODULE_INFO(test, "Y");
