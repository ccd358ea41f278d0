# SPDX-License-Identifier: GPL-2.0-only
"""
Two libvirtd, which believe that they are on different hosts: each has its own /run, /var
and /etc/libvirt, its own name in /etc/hosts and its own UUID.
"""
import json
import os
import re
import subprocess
import uuid

from livemig import migration, vm
from livemig.vm import Deadline, Failure, GuestLost

DRIVER = "precopy-vfio-pci"
DOMAIN = "traveller"
# A guest that writes seldom: what is written again and again keeps a migration going.
QUIET = "unit_kib=64 write_every_us=1000"

# What L1 lacks: cgroup controllers, user namespaces, AppArmor, virtlogd's socket
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
"""
ZIPPED = 'save_image_format = "gzip"\n'
# The field of a saved image's header that names its format, and what is there then
IMAGE_FORMAT, IMAGE_GZIP = 28, 1
LIBVIRTD_CONF = """\
unix_sock_dir = "{folder}"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_outputs = "1:file:{folder}/log"
log_filters = "1:qemu.qemu_monitor 3:*"
"""
CACHE = "/var/cache/libvirt"
# What QEMU says of a guest that resets itself, as libvirtd's log has it
RESET_ITSELF = re.compile(rb'"event": "RESET", "data": \{[^}]*"guest": true')
# Events that may explain it
TOLD = re.compile(r'"event": "(RESET|WATCHDOG|GUEST_PANICKED)"')
# A host of its own, as far as libvirt looks
NEW_HOST = """\
cp -a /etc/libvirt {folder}/etc
cp {folder}/qemu.conf {folder}/libvirtd.conf {folder}/etc/
mount --bind {folder}/etc /etc/libvirt
mount --bind {folder}/hosts /etc/hosts
umount /sys/fs/cgroup 2>/dev/null
for d in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
	[ ! -d $d ] || mount -t tmpfs -o mode=0755 none $d || exit 1
done
[ ! -d {cache} ] || cp -a {cache}/. {here}/ || exit 1
exec libvirtd -f /etc/libvirt/libvirtd.conf -p {folder}/pid
"""
DOMAIN_XML = """\
<domain type='kvm'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{ram}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 panic=-1 quiet -- {guest}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='{folder}/console'/><target port='0'/></serial>
    <serial type='unix'>
      <source mode='bind' path='{folder}/line'/><target port='1'/>
    </serial>
{hostdev}  </devices>
</domain>
"""

HOSTDEV_XML = """\
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source>
        <address domain='0x{pci[0]}' bus='0x{pci[1]}' slot='0x{pci[2]}' function='0x{pci[3]}'/>
      </source>
    </hostdev>
"""


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


def parts(bdf):
    domain, bus, rest = bdf.split(":")
    return [domain, bus] + rest.split(".")


def nodedev(bdf):
    """What libvirt calls a function."""
    return "pci_" + "_".join(parts(bdf))


def driver_of(bdf):
    """The name of the driver that a function is bound to, or nothing."""
    link = f"/sys/bus/pci/devices/{bdf}/driver"
    return os.path.basename(os.readlink(link)) if os.path.exists(link) else ""


def tail(path, count):
    """Its last lines, or all of them; none if there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines if count is None else lines[-count:]


def is_zipped(path):
    with open(path, "rb") as file:
        file.seek(IMAGE_FORMAT)
        return int.from_bytes(file.read(4), "little") == IMAGE_GZIP


class Host:
    """One libvirtd."""

    def __init__(self, name, bdf, folder, zips):
        self.name = name
        self.bdf = bdf
        self.zips = zips                # the images that it saves
        self.folder = os.path.join(folder, name)
        self.process = None
        self.log_seen = 0               # bytes of its log
        os.mkdir(self.folder)

    def path(self, what):
        return os.path.join(self.folder, what)

    @property
    def uri(self):
        return f"qemu+unix:///system?socket={self.path('libvirt-sock')}"

    def write(self, name, text):
        put(self.path(name), text)

    def start(self, known=None):
        """What a host that is known has found out about QEMU need not be found out again."""
        cache = f"/proc/{known.process.pid}/root{CACHE}" if known else "/nowhere"
        self.write("qemu.conf", QEMU_CONF + ZIPPED * self.zips)
        self.write("libvirtd.conf", LIBVIRTD_CONF.format(folder=self.folder, uuid=uuid.uuid4()))
        self.write("hosts", f"127.0.0.1 {self.name}.example {os.uname().nodename}\n")
        with open(self.path("stderr"), "wb") as err:
            self.process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "unchanged", "sh", "-c",
                 NEW_HOST.format(folder=self.folder, cache=cache, here=CACHE)],
                stdin=subprocess.DEVNULL, stdout=err, stderr=err)

    def wait_started(self):
        """It asks QEMU what it can do before it answers."""
        deadline = Deadline(120, f"starting libvirtd ({self.name})")
        while self.try_virsh("version").returncode:
            self.must_live()
            deadline.nap(0.2)

    def try_virsh(self, *words):
        try:
            return subprocess.run(["virsh", "-q", "-c", self.uri, *words], capture_output=True,
                                  text=True, timeout=vm.limit(200), check=False)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"virsh {words[0]} ({self.name}) did not end in "
                          f"{error.timeout:.0f} s") from error

    def virsh(self, *words):
        done = self.try_virsh(*words)
        if done.returncode:
            raise Failure(f"virsh {words[0]} ({self.name}): {done.stderr.strip()}")
        return done.stdout.strip()

    def tell_qemu(self, command, **arguments):
        return self.virsh("qemu-monitor-command", DOMAIN,
                          json.dumps({"execute": command, "arguments": arguments}))

    def qemu_log(self):
        """What QEMU has to say goes there; it is in a place of libvirtd's own."""
        if not self.process:
            return "/nowhere"
        return os.path.join(f"/proc/{self.process.pid}/root", "var/log/libvirt/qemu", f"{DOMAIN}.log")

    def figures(self):
        """QEMU's last answer to query-migrate, and what libvirt makes of it."""
        with open(self.path("log"), errors="replace") as log:
            said = re.findall(r'\{"return": (\{[^\n]*"status": "[^\n]*\}), "id"', log.read())
        said = [text for text in said if '"ram"' in text or '"remaining"' in text]
        job = self.try_virsh("domjobinfo", DOMAIN).stdout
        return (said[-1] if said else "nothing") + "; " + " ".join(job.split())

    def must_live(self):
        if self.process.poll() is not None:
            with open(self.path("stderr"), errors="replace") as err:
                raise Failure(f"libvirtd ({self.name}) has ended: {err.read()[-400:]}")

    def collect_events(self):
        """It must live, and its guest go on."""
        self.must_live()
        with open(self.path("log"), "rb") as log:
            log.seek(self.log_seen)
            new = log.read()
        # The beginning of a line is looked at again with its end
        self.log_seen += new.rfind(b"\n") + 1
        if RESET_ITSELF.search(new):
            vm.must_not_panic(self.name, self.path("console"))
            raise GuestLost(self.name, "reset itself")

    def plight(self):
        """Why its guest may be silent."""
        return f"{self.name} says: " + self.try_virsh("domstate", "--reason", DOMAIN).stdout.strip()

    def domain_xml(self, option, in_use):
        guest = (f"vendor={migration.pci_id(self.bdf, 'vendor')} "
                 f"device={migration.pci_id(self.bdf, 'device')} {QUIET} in_use_kib={in_use}")
        return DOMAIN_XML.format(name=DOMAIN, uuid=uuid.uuid5(uuid.NAMESPACE_DNS, DOMAIN),
                                 ram=vm.RAM_MIB, kernel=option.kernel, initrd=option.initrd,
                                 guest=guest, folder=self.folder, hostdev=self.hostdev_xml())

    def hostdev_xml(self):
        return HOSTDEV_XML.format(pci=parts(self.bdf))

    def end(self):
        if self.process and self.process.poll() is None:
            self.try_virsh("destroy", DOMAIN)
            self.process.terminate()
            self.process.wait(60)

    def last_words(self):
        """
        Its errors, without those that the place is to blame for, and whether the guest reset
        itself; what its QEMU says, and its guest.
        """
        return ([line for line in tail(self.path("log"), None)
                 if ": error :" in line or TOLD.search(line)][-8:]
                + tail(self.qemu_log(), 12) + tail(self.path("console"), 8))
