// SPDX-License-Identifier: GPL-2.0-only
/*
 * precopy-vfio-pci: a vfio-pci variant driver with pre-copy live migration of
 * device memory. PCI driver: ids, probe, remove, and resets of the carrier.
 */

#include <linux/module.h>
#include <linux/pci.h>
#include <linux/workqueue.h>

#include "func/model.h"
#include "precopy.h"

static u64 memory_size = SZ_64M;

static int precopy_param_set(const char *val, const struct kernel_param *kp)
{
	return precopy_memory_size_parse(val, kp->arg);
}

static const struct kernel_param_ops precopy_param_ops = {
	.set = precopy_param_set,
	.get = param_get_ullong,
};

module_param_cb(memory_size, &precopy_param_ops, &memory_size, 0444);
MODULE_PARM_DESC(memory_size,
		 "Memory size of newly bound devices in bytes, or with suffix K, M or G; a power of two from 1M to 64G (default 64M)");

static char *model = "memory";
module_param(model, charp, 0444);
MODULE_PARM_DESC(model,
		 "Model of newly bound devices: memory, or engine, which has DMA and interrupts too (default memory)");

static int precopy_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct precopy_function *function;
	struct precopy_device *pcd;
	int ret;

	function = vfio_alloc_device(precopy_function, core.vdev, &pdev->dev,
				     &precopy_device_ops);
	if (IS_ERR(function))
		return PTR_ERR(function);
	pcd = function->pcd;
	pcd->next_size = memory_size;
	pcd->next_model = precopy_model_find(model);
	/* Hide the carrier's interrupt vectors, see precopy_set_irqs() */
	pcd->no_msi = pdev->no_msi;
	pdev->no_msi = 1;
	/* vfio-pci-core's PCI error handlers expect its object in the drvdata */
	dev_set_drvdata(&pdev->dev, pcd->core);
	ret = vfio_pci_core_register_device(pcd->core);
	if (ret) {
		pdev->no_msi = pcd->no_msi;
		vfio_put_device(&function->core.vdev);
		return ret;
	}
	precopy_debugfs_init(pcd);
	return 0;
}

static void precopy_remove(struct pci_dev *pdev)
{
	struct precopy_device *pcd = precopy_from_dev(&pdev->dev);

	vfio_pci_core_unregister_device(pcd->core);
	pdev->no_msi = pcd->no_msi;
	/* Open data fds may keep @pcd, but not the core's object */
	vfio_put_device(&pcd->core->vdev);
}

/*
 * Called after every requested reset of the carrier (rule R53). Recovery from PCI
 * Express errors resets links without this call. The device then keeps its state,
 * none of which is in the carrier, and the core's error handler informs the VMM.
 */
static void precopy_reset_done(struct pci_dev *pdev)
{
	precopy_device_reset(precopy_from_dev(&pdev->dev));
}

static const struct pci_error_handlers precopy_err_handlers = {
	.reset_done	= precopy_reset_done,
	.error_detected	= vfio_pci_core_aer_err_detected,
};

/*
 * driver_override can bind any function by the driver's name. The table is for tools
 * that select a driver by its vfio_pci: alias. It has only QEMU's pci-testdev, without
 * wildcards in its ids, so that these tools select this driver for no other hardware.
 */
static const struct pci_device_id precopy_ids[] = {
	{
		.vendor		= PCI_VENDOR_ID_REDHAT,
		.device		= 0x0005,
		.subvendor	= PCI_SUBVENDOR_ID_REDHAT_QUMRANET,
		.subdevice	= PCI_SUBDEVICE_ID_QEMU,
		.override_only	= PCI_ID_F_VFIO_DRIVER_OVERRIDE,
	},
	{}
};
MODULE_DEVICE_TABLE(pci, precopy_ids);

static struct pci_driver precopy_driver = {
	.name			= "precopy-vfio-pci",
	.id_table		= precopy_ids,
	.probe			= precopy_probe,
	.remove			= precopy_remove,
	.err_handler		= &precopy_err_handlers,
	.dev_groups		= precopy_sysfs_groups,
	.driver_managed_dma	= true,
};

static int __init precopy_init(void)
{
	int ret;

	if (!precopy_memory_size_valid(memory_size)) {
		pr_err("precopy-vfio-pci: memory_size must be a power of two from 1 MiB to 64 GiB\n");
		return -EINVAL;
	}
	if (!precopy_model_find(model)) {
		pr_err("precopy-vfio-pci: model must be memory or engine\n");
		return -EINVAL;
	}
	precopy_wq = alloc_workqueue("precopy-vfio-pci", WQ_UNBOUND | WQ_SYSFS,
				     0);
	if (!precopy_wq)
		return -ENOMEM;
	ret = pci_register_driver(&precopy_driver);
	if (ret)
		destroy_workqueue(precopy_wq);
	return ret;
}
module_init(precopy_init);

static void __exit precopy_exit(void)
{
	pci_unregister_driver(&precopy_driver);
	/* Waits for the workers that free memory */
	destroy_workqueue(precopy_wq);
}
module_exit(precopy_exit);

MODULE_LICENSE("GPL");
MODULE_VERSION("0.2.0");
MODULE_AUTHOR("The precopy-vfio-pci maintainers");
MODULE_DESCRIPTION("VFIO PCI driver with pre-copy live migration of device memory");
