# SPDX-License-Identifier: GPL-2.0-only
"""One migration: two QEMU, one VM, and all the evidence there is about it."""
import os
import subprocess
import time
from dataclasses import dataclass, field

from . import trace, vm
from .vm import VM, Deadline, Failure, Guest

# What QEMU may count on while the VM is stopped, in bytes a second: about what two
# processors that emulate all of this manage.  Without it QEMU estimates from what
# it sent last, which for a VM whose memory is mostly zero is far too little.
BANDWIDTH = 64 << 20
DOWNTIME_MS = 300
MARGIN = 4 << 20
CAPABILITIES = ("return-path", "switchover-ack", "events")
DEBUGFS = "/sys/kernel/debug/vfio"


@dataclass
class Setup:
    """What one run is made of."""
    kernel: str
    initrd: str
    carrier: dict
    accel: str = "kvm"
    iommufd: bool = False
    precopy: bool = True
    delay_ms: int = 0
    in_use_mib: int = 40
    guest_options: str = ""
    linger: float = 1.0         # seconds to watch the guest before and after

    @property
    def guest_arguments(self):
        vendor, device = (pci_id(self.carrier["source"], n) for n in ("vendor", "device"))
        return (f"vendor={vendor} device={device} "
                f"in_use_mib={self.in_use_mib} {self.guest_options}")

    @property
    def downtime_limit_ms(self):
        """
        Without pre-copy the whole device moves while the VM is stopped, and QEMU
        would wait for ever for that to fit the usual limit.
        """
        if self.precopy:
            return DOWNTIME_MS
        return ((self.in_use_mib << 20) + MARGIN) * 1000 // BANDWIDTH


@dataclass
class Run:
    """What was seen of one run; times are monotonic ns."""
    setup: Setup
    folder: str
    offset: int = 0
    started: int = 0
    finished: int = 0
    kvm: bool = False
    ready: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    expected_ms: int = None     # the downtime that QEMU expected last
    result: dict = field(default_factory=dict)
    bad: list = field(default_factory=list)
    events: dict = field(default_factory=dict)      # name of the VM -> QMP events
    log: dict = field(default_factory=dict)         # name of the VM -> QEMU's trace
    records: list = field(default_factory=list)     # the driver's trace
    records_lost: int = 0
    counted: dict = field(default_factory=dict)     # bytes by the driver's statistics
    before: int = 0             # the guest's page writes before, during
    during: int = 0             # (until the VM stopped) and after the migration
    after: int = 0
    silence: tuple = (0, 0)
    end_state: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)  # of the kernel


def pci_id(bdf, name):
    with open(f"/sys/bus/pci/devices/{bdf}/{name}") as file:
        return file.read().strip()


def device_attribute(bdf, name):
    with open(f"/sys/bus/pci/devices/{bdf}/precopy/{name}") as file:
        return file.read().strip()


def statistic(bdf, name):
    """One of the driver's counters, which only ever grow."""
    with open(f"{DEBUGFS}/{bdf}/precopy/stats") as file:
        return next(int(line.split()[1]) for line in file if line.split()[0] == name)


def byte_counters(setup):
    return {"saved": statistic(setup.carrier["source"], "saved_bytes"),
            "loaded": statistic(setup.carrier["target"], "loaded_bytes")}


def turn_knob(bdf, name, value):
    path = f"{DEBUGFS}/{bdf}/precopy/{name}"
    try:
        trace.write(path, str(value))
    except OSError as error:
        raise Failure(f"cannot set the test knob {path}: {error.strerror}") from error


def turn_knobs(setup):
    """The knobs apply when QEMU opens the device."""
    for name, bdf in setup.carrier.items():
        turn_knob(bdf, "no_precopy", "N" if setup.precopy else "Y")
        turn_knob(bdf, "startup_delay_ms", setup.delay_ms if name == "target" else 0)


def kernel_complaints():
    """Lines of the kernel's log that must not be there."""
    words = ("WARNING:", "BUG:", "Oops", "KASAN", "general protection", "possible circular",
             "suspicious RCU", "INFO: task", "refcount_t", "UBSAN", "kernel BUG")
    log = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace",
                         check=False).stdout
    return [line for line in log.split("\n") if any(w in line for w in words)]


def kvm_works(folder):
    """
    Run a few real instructions under KVM: a /dev/kvm that opens proves nothing.
    The code sits where a processor starts and ends QEMU with a status of its own.
    """
    status = 21
    rom = bytearray(b"\xf4" * 65536)
    code = bytes([0xb0, status, 0xe6, 0xf4])        # mov $status,%al; out %al,$0xf4
    rom[0xfff0:0xfff0 + len(code)] = code
    path = os.path.join(folder, "probe.rom")
    with open(path, "wb") as file:
        file.write(rom)
    try:
        done = subprocess.run([vm.QEMU, "-M", "q35", "-accel", "kvm", "-cpu", "host",
                               "-m", "16", "-nodefaults", "-display", "none", "-bios", path,
                               "-device", "isa-debug-exit,iobase=0xf4,iosize=1"],
                              capture_output=True, timeout=60 * vm.patience, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == status * 2 + 1


def boot(source, guest, run):
    source.start()
    guest.attach("source", source.path("line"))
    run.kvm = source.cmd("query-kvm")["enabled"]
    deadline = Deadline(90, "booting the VM and filling the device")
    while not (ready := guest.find("READY")):
        source.must_live()
        deadline.nap()
    run.ready = ready


def prepare(machine):
    machine.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": True} for name in CAPABILITIES])
    machine.cmd("migrate-set-parameters", **{
        "downtime-limit": machine.setup.downtime_limit_ms,
        "max-bandwidth": 1 << 30,
        "avail-switchover-bandwidth": BANDWIDTH})


def must_not_fail(source, target):
    for machine in (source, target):
        if machine.seen("MIGRATION", status="failed"):
            why = source.cmd("query-migrate").get("error-desc", "QEMU gives no reason")
            raise Failure(f"the migration failed on the {machine.name}: {why}; the "
                          f"target's last words: {target.last_words()}")


def wait_migrated(source, target, run):
    """
    Until the source says completed and the target runs.  The target's monitor may
    be silent while its device loads, so it is only listened to, never asked.
    """
    deadline = Deadline(90, "the migration")
    while not (source.seen("MIGRATION", status="completed") and target.seen("RESUME")):
        source.collect_events()
        target.collect_events()
        must_not_fail(source, target)
        if not source.seen("STOP"):
            info = source.cmd("query-migrate")
            run.expected_ms = info.get("expected-downtime", run.expected_ms)
        deadline.nap(0.1)


def ask_guest(guest, name, word, answer, machine):
    """Send the guest a word and wait for its answer."""
    start = len(guest.lines)
    guest.send(name, word)
    deadline = Deadline(60, f"the guest's answer to {word!r}")
    while not (said := guest.find(answer, start)):
        machine.must_live()
        deadline.nap()
    return said


def migrate(source, target, guest, run):
    uri = f"unix:{os.path.join(run.folder, 'stream')}"
    for machine in (source, target):
        prepare(machine)
    target.cmd("migrate-incoming", uri=uri)
    ask_guest(guest, "source", "mark", "MARKED", source)
    marked = time.monotonic_ns()
    time.sleep(run.setup.linger)
    run.offset = trace.day_minus_mono()
    run.started = time.monotonic_ns()
    run.before = guest.iterations(marked, run.started)
    source.cmd("migrate", uri=uri)
    wait_migrated(source, target, run)
    run.finished = time.monotonic_ns()
    run.info = source.cmd("query-migrate")


def watch_after(source, target, guest, run):
    resumed = trace.qmp_time(target.seen("RESUME"), run.offset)
    time.sleep(run.setup.linger)
    target.collect_events()
    stopped = trace.qmp_time(source.seen("STOP"), run.offset)
    run.during = guest.iterations(run.started, stopped)
    run.after = guest.iterations(resumed)
    run.silence = guest.longest_silence(run.started)
    run.result = ask_guest(guest, "target", "check", "RESULT", target)
    run.bad = guest.bad_lines()


def collect(run, machines, tracing):
    tracing.stop()
    now = byte_counters(run.setup)
    run.counted = {what: now[what] - run.counted[what] for what in now}
    run.records = tracing.records()
    run.records_lost = tracing.lost()
    for machine in machines:
        run.events[machine.name] = machine.events
        run.log[machine.name] = trace.qemu_log(machine.path("trace"), run.offset)


def go(setup, folder, say=lambda text: None):
    """Boot, migrate, check, clean up; returns the Run or raises Failure."""
    os.makedirs(folder)
    run = Run(setup, folder)
    source = VM("source", folder, setup)
    target = VM("target", folder, setup, incoming=True)
    guest = Guest()
    tracing = trace.DriverTrace()
    old_complaints = len(kernel_complaints())
    try:
        turn_knobs(setup)
        say("booting the VM")
        boot(source, guest, run)
        target.start()
        guest.attach("target", target.path("line"))
        tracing.start()
        run.counted = byte_counters(setup)
        say("migrating")
        migrate(source, target, guest, run)
        say("checking every page")
        watch_after(source, target, guest, run)
        collect(run, (source, target), tracing)
    except Failure as failure:
        failure.run = run
        if run.started:
            collect(run, (source, target), tracing)
        raise
    finally:
        source.quit()
        target.quit()
        guest.close()
    run.end_state = {name: device_attribute(bdf, "migration_state")
                     for name, bdf in setup.carrier.items()}
    run.complaints = kernel_complaints()[old_complaints:]
    return run
