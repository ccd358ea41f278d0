/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _PCI_HOST_SIM_H
#define _PCI_HOST_SIM_H

#include <linux/list.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/* Number of functions of a bus */
#define PCI_SIM_FUNCTIONS	256
/* Number of devices of a bus */
#define PCI_SIM_SLOTS		32
/* Size of the config space with registers, in bytes; all later registers are 0 */
#define PCI_SIM_CONFIG_SIZE	0x140
/* One of Red Hat's device ids that are reserved for experiments */
#define PCI_SIM_PF_VENDOR	PCI_VENDOR_ID_REDHAT
#define PCI_SIM_PF_DEVICE	0x00f0
/* Distance of the first virtual function (VF) from its physical function (PF) */
#define PCI_SIM_VF_OFFSET	8

/**
 * enum pci_sim_kind - kind of a function
 * @PCI_SIM_PLAIN: function without SR-IOV
 * @PCI_SIM_PF: physical function
 * @PCI_SIM_VF: virtual function, which is present while its PF enables it
 */
enum pci_sim_kind {
	PCI_SIM_PLAIN,
	PCI_SIM_PF,
	PCI_SIM_VF,
};

/**
 * struct pci_sim_ids - PCI ids of all functions except PFs
 * @vendor: vendor ID
 * @device: device ID
 * @subvendor: subsystem vendor ID
 * @subdevice: subsystem device ID
 */
struct pci_sim_ids {
	u16 vendor;
	u16 device;
	u16 subvendor;
	u16 subdevice;
};

/**
 * struct pci_sim_function - a function
 * @kind: its kind
 * @present: true if it answers to accesses; protected by the host's lock
 * @pinned: true if its driver keeps this module loaded; protected by the lock of
 *	the device
 * @config: registers; protected by the host's lock
 * @writable: bits of @config that software can change
 */
struct pci_sim_function {
	enum pci_sim_kind kind;
	bool present;
	bool pinned;
	u8 config[PCI_SIM_CONFIG_SIZE];
	u8 writable[PCI_SIM_CONFIG_SIZE];
};

/**
 * struct pci_sim_options - numbers and properties of a host's functions
 * @ids: identifiers of the functions
 * @functions: number of functions without SR-IOV
 * @total_vfs: if not 0, there is a PF as well, with this number of VFs
 * @flr: whether the functions have a function level reset
 */
struct pci_sim_options {
	struct pci_sim_ids ids;
	unsigned int functions;
	unsigned int total_vfs;
	bool flr;
};

/**
 * struct pci_sim_host - a host bridge with one bus
 * @sysdata: data of the bus for the architecture
 * @node: in the list of all hosts
 * @bridge: host bridge, whose private data this is
 * @msi: interrupt domain that never has an interrupt
 * @msi_fwnode: name of @msi
 * @busn: number of the bus, 0
 * @removal: removes the devices of functions that were unplugged
 * @options: numbers and properties of its functions
 * @lock: protects the registers of all functions and whether they are present
 * @functions: by device and function number, NULL where there is none
 */
struct pci_sim_host {
	struct pci_sysdata sysdata;
	struct list_head node;
	struct pci_host_bridge *bridge;
	struct irq_domain *msi;
	struct fwnode_handle *msi_fwnode;
	struct resource busn;
	struct work_struct removal;
	const struct pci_sim_options *options;
	raw_spinlock_t lock;
	struct pci_sim_function *functions[PCI_SIM_FUNCTIONS];
};

extern struct pci_ops pci_sim_ops;
extern struct pci_driver pci_sim_pf_driver;
extern const struct attribute_group pci_sim_plug_group;

static inline struct pci_sim_host *pci_sim_host(struct pci_bus *bus)
{
	return container_of(to_pci_sysdata(bus), struct pci_sim_host, sysdata);
}

static inline struct pci_sim_function *pci_sim_function(struct pci_dev *pdev)
{
	return pci_sim_host(pdev->bus)->functions[pdev->devfn];
}

static inline bool pci_sim_is_ours(struct pci_dev *pdev)
{
	return pdev->bus->ops == &pci_sim_ops;
}

/* host.c */
unsigned int pci_sim_devfn(unsigned int index);
bool pci_sim_fits(const struct pci_sim_options *options);
struct pci_sim_host *pci_sim_host_create(const struct pci_sim_options *options,
					 unsigned int domain);
void pci_sim_host_destroy(struct pci_sim_host *host);

/* config.c */
void pci_sim_set8(struct pci_sim_function *fn, int where, u8 value, u8 writable);
void pci_sim_set16(struct pci_sim_function *fn, int where, u16 value, u16 writable);
void pci_sim_set32(struct pci_sim_function *fn, int where, u32 value, u32 writable);
void pci_sim_config_init(struct pci_sim_host *host, unsigned int devfn);

/* bind.c */
int pci_sim_register(void);
void pci_sim_unregister(void);

/* sriov.c */
void pci_sim_init_sriov(struct pci_sim_function *fn, unsigned int devfn,
			const struct pci_sim_options *options);
void pci_sim_reset_sriov(struct pci_sim_function *fn);
void pci_sim_update_vfs(struct pci_sim_host *host, unsigned int devfn);

/* plug.c */
void pci_sim_remove_gone(struct work_struct *work);

#endif /* _PCI_HOST_SIM_H */
