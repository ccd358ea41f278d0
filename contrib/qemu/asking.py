# SPDX-License-Identifier: GPL-2.0-only
"""What the programs of this directory share: QEMUs that may ask, and what their traces say."""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts/demo"))

# pylint: disable=wrong-import-position
from livemig import migration, vm
from livemig.evidence import Evidence
from livemig.migration import Setup
from livemig.vm import Failure, Qemu

DRIVER = "/sys/bus/pci/drivers/precopy-vfio-pci"
# The firmware that such a QEMU needs, of the release
DATA = ("/opt/release/usr/share/qemu", "/usr/share/seabios")
# So much that the device's data ends after that of RAM. If not, the source waits anyway:
# while the target's write() blocks, the only socket fills up.
IN_USE_MIB = 56
EVENTS = ("vfio_startup_pending", "vfio_load_startup", "migrate_startup_pending")


def arguments(parser):
    """The options that all programs have."""
    for option in ("--qemu", "--kernel", "--initrd"):
        parser.add_argument(option, required=True)
    parser.add_argument("--out", help="folder for QEMU's traces")


def carriers():
    """The first two devices that are bound to the driver."""
    found = sorted(name for name in os.listdir(DRIVER) if ":" in name)
    if len(found) < 2:
        raise Failure(f"{len(found)} devices are bound to precopy-vfio-pci, two are needed")
    return dict(zip(("source", "target"), found))


def setup(args, folder, asks, **more):
    """How VMs are started; the QEMUs trace what they ask."""
    vm.TRACE = tuple(dict.fromkeys(tuple(vm.TRACE) + EVENTS))
    qemu = Qemu(args.qemu, DATA)
    return Setup(kernel=args.kernel, initrd=args.initrd, carrier=carriers(),
                 accel="kvm" if migration.kvm_works(folder) else "tcg",
                 qemu={"source": qemu, "target": qemu}, in_use_mib=IN_USE_MIB,
                 device_options="" if asks else ",x-migration-startup-info=off", **more)


def numbers(run, event, pattern):
    """What QEMU's trace says, in the order in which it said it."""
    side = "target" if event == "vfio_load_startup" else "source"
    return [int(re.search(pattern, record.text)[1]) for record in run.log[side]
            if record.name == event and record.at >= run.started]


def estimates(run):
    """What the source's device said of the startup that is left, in ms."""
    return [ns / 1e6 for ns in numbers(run, "vfio_startup_pending", r"remaining (\d+) ns")]


def waited_ms(run):
    """How long the VM ran on at the source."""
    return (Evidence(run).stopped() - run.started) / 1e6


def keep(folder, out):
    """What QEMU traced."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".trace", ".stderr")):
                shutil.copy(os.path.join(place, name),
                            os.path.join(out, f"{os.path.basename(place)}.{name}"))
