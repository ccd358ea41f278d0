// SPDX-License-Identifier: GPL-2.0-only
/*
 * Binding of functions to drivers. A new function is bound to the driver that the
 * module parameter "driver" names. A function with a driver keeps the module loaded.
 */
#include <linux/module.h>

#include "pci-host-sim.h"

static char *driver;
module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "Driver to bind functions and virtual functions to, by driver_override (default none)");

static void pci_sim_added(struct pci_dev *pdev)
{
	int ret;

	if (!driver || pci_sim_function(pdev)->kind == PCI_SIM_PF)
		return;
	ret = device_set_driver_override(&pdev->dev, driver);
	if (ret)
		pci_warn(pdev, "driver_override cannot be set: error %d\n", ret);
}

/*
 * A function that has a driver keeps the module loaded. Unloading would unbind
 * it, and VFIO then waits until the last user has closed the device.
 */
static void pci_sim_bound(struct pci_dev *pdev)
{
	if (pdev->dev.driver != &pci_sim_pf_driver.driver)
		pci_sim_function(pdev)->pinned = try_module_get(THIS_MODULE);
}

/* dev.driver is already NULL, so fn->pinned tells whether to drop the reference */
static void pci_sim_unbound(struct pci_dev *pdev)
{
	struct pci_sim_function *fn = pci_sim_function(pdev);

	if (!fn->pinned)
		return;
	fn->pinned = false;
	module_put(THIS_MODULE);
}

static int pci_sim_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);

	if (!pci_sim_is_ours(pdev))
		return NOTIFY_DONE;
	switch (action) {
	case BUS_NOTIFY_ADD_DEVICE:
		pci_sim_added(pdev);
		break;
	case BUS_NOTIFY_BOUND_DRIVER:
		pci_sim_bound(pdev);
		break;
	case BUS_NOTIFY_UNBOUND_DRIVER:
		pci_sim_unbound(pdev);
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block pci_sim_notifier = {
	.notifier_call = pci_sim_notify,
};

/**
 * pci_sim_register() - register the notifier that binds functions, and the PF driver
 *
 * Return: 0, or a negative error.
 */
int pci_sim_register(void)
{
	int ret;

	ret = bus_register_notifier(&pci_bus_type, &pci_sim_notifier);
	if (ret)
		return ret;
	ret = pci_register_driver(&pci_sim_pf_driver);
	if (ret)
		bus_unregister_notifier(&pci_bus_type, &pci_sim_notifier);
	return ret;
}

/**
 * pci_sim_unregister() - undo pci_sim_register()
 *
 * All functions must have been removed.
 */
void pci_sim_unregister(void)
{
	pci_unregister_driver(&pci_sim_pf_driver);
	bus_unregister_notifier(&pci_bus_type, &pci_sim_notifier);
}
