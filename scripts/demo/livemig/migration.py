# SPDX-License-Identifier: GPL-2.0-only
"""One migration: two QEMU, one VM, and all the evidence there is about it."""
from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import trace, vm
from .vm import VM, Deadline, Failure, Guest, GuestLost, despite_loss

if TYPE_CHECKING:
    from .vm import Say

# What QEMU may count on while the VM is stopped, in bytes a second: about what two
# processors that emulate all of this manage.  Without it QEMU estimates from what
# it sent last, which for a VM whose memory is mostly zero is far too little.
BANDWIDTH = 64 << 20
DOWNTIME_MS = 300
MARGIN = 4 << 20
FAST = 1 << 30
SLOW = 4 << 20                  # bandwidth of a migration that is to be cancelled
HELD_US = 1_000_000_000         # for ever, as far as a migration goes
ASKED_AGAIN = "vfio_query_precopy_size_request_switchover_ack"
CAPABILITIES = ("return-path", "switchover-ack", "events")
CHANNELS = 2                    # of multifd
DEBUGFS = "/sys/kernel/debug/vfio"
FIND_SPLATS = os.path.join(os.path.dirname(__file__), "../../testbed/find-splats")


@dataclass
class Setup:
    """What one run is made of."""
    kernel: str
    initrd: str
    carrier: dict
    accel: str = "kvm"
    second: dict = field(default_factory=dict)      # as carrier, if there are two devices
    qemu: dict = field(default_factory=lambda: {"source": vm.Qemu(), "target": vm.Qemu()})
    machine: str = "q35"
    cpus: int = 1
    model: str = "memory"       # of all devices
    iommufd: bool = False
    device_options: str = ""    # more of them, each with a comma before it
    on_a_port: bool = False     # where devices can be plugged and unplugged
    migratable: str = "on"      # QEMU's enable-migration
    shared_ram: bool = False    # so that another QEMU on this host can go on with it
    iommu_tracks: bool = False  # the IOMMU, not the device, tells what DMA has written
    dma_log: bool = True        # without it QEMU sends all RAM again while the VM is stopped
    cpu: str = ""               # QEMU's model of the processor; the best there is by default
    precopy: bool = True
    ack: bool = True            # wait for the target's acknowledgment
    multifd: bool = False       # several lines at once,
    device_by_multifd: bool = False     # with the last of the device's state
    compression: str = "none"           # of multifd
    delay_ms: int = 0
    in_use_mib: int = 40
    read_mib: int = 0           # after a check the guest has read, and so uses, all of it
    guest_options: str = ""
    limit_ms: int = DOWNTIME_MS    # QEMU's downtime limit with pre-copy
    bandwidth: int = FAST       # what QEMU may send, bytes a second
    reinit: bool = False        # let the initial data begin anew after the first ack
    cancel_first: bool = False  # begin a migration and take it back before
    spoil_first: bool = False   # and one whose target must start anew after its ack
    then: tuple = ()            # more ways, there and back: what is different in each
    disturb: bool = False       # at last change bytes, to see the guest notice
    linger: float = 1.0         # seconds to watch the guest before and after

    @property
    def guest_arguments(self) -> str:
        vendor, device = (pci_id(self.carrier["source"], n) for n in ("vendor", "device"))
        return (f"vendor={vendor} device={device} in_use_mib={self.in_use_mib} "
                f"touchers={self.cpus - 1} {self.guest_options}")

    @property
    def pairs(self) -> list[dict[str, str]]:
        """Source and target of each device."""
        return [self.carrier] + [self.second] * bool(self.second)

    def reversed(self, **changes: Any) -> Setup:
        """The same for the way back, but for what is told."""
        back = {name: {"source": way["target"], "target": way["source"]}
                for name, way in (("carrier", self.carrier), ("second", self.second),
                                  ("qemu", self.qemu)) if way}
        return dataclasses.replace(self, **{**back, **changes})

    @property
    def downtime_limit_ms(self) -> int:
        """
        Without pre-copy the whole device moves while the VM is stopped, and QEMU
        would wait for ever for that to fit the usual limit. The device's estimate has
        a record's header for each page, less than a part in 128. All RAM moves then if
        nobody logs what DMA writes.
        """
        if not self.dma_log:
            return ((2 * vm.RAM_MIB) << 20) * 1000 // BANDWIDTH
        if self.precopy:
            return self.limit_ms
        in_use = max(self.in_use_mib, self.read_mib) << 20
        return (in_use + in_use // 128 + MARGIN) * 1000 // BANDWIDTH

    @property
    def processor(self) -> str:
        return self.cpu or ("host" if self.accel == "kvm" else "max")


@dataclass
class Run:
    """What was seen of one run; times are monotonic ns."""
    setup: Setup
    folder: str
    offset: int = 0
    started: int = 0
    kvm: bool = False
    ready: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    expected: list = field(default_factory=list)    # (when, downtime in ms that QEMU expected)
    marked: dict = field(default_factory=dict)      # what the guest said before it,
    result: dict = field(default_factory=dict)      # and after its check
    bad: list = field(default_factory=list)
    events: dict = field(default_factory=dict)      # name of the VM -> QMP events
    log: dict = field(default_factory=dict)         # name of the VM -> QEMU's trace
    records: list = field(default_factory=list)     # the driver's trace
    records_lost: int = 0
    counted: dict = field(default_factory=dict)     # by the driver's statistics
    before: int = 0             # the guest's page writes before, during
    during: int = 0             # (until the VM stopped) and after the migration
    after: int = 0
    heard: int = None           # the guest's first heartbeat on the target
    silence: int = 0            # the longest time without a heartbeat, ns
    silence_running: int = 0    # the same, while the source ran
    resumed: int = 0            # when the target ran
    at_rest: dict = field(default_factory=dict)     # faults until the guest was ready
    tracked: dict = field(default_factory=dict)     # and while it migrated, at the source
    disturbed: dict = field(default_factory=dict)
    cancelled: dict = field(default_factory=dict)
    spoilt: dict = field(default_factory=dict)
    reinit_at: int = None       # when initial data began anew
    asked_before: int = None    # how often QEMU had asked for acks then; None: it has again
    samples: list = field(default_factory=list)     # (when, all bytes, the device's)
    end_state: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)  # of the kernel

    @property
    def expected_ms(self) -> int:
        """The downtime that QEMU expected last."""
        return self.expected[-1][1] if self.expected else None

    @property
    def expected_most_ms(self) -> int:
        """The longest that it expected."""
        return max((ms for _, ms in self.expected), default=0)


def pci_id(bdf: str, name: str) -> str:
    with open(f"/sys/bus/pci/devices/{bdf}/{name}") as file:
        return file.read().strip()


def is_there(bdf: str) -> bool:
    """Bound to the driver, and in a slot that has power."""
    return os.path.exists(f"/sys/bus/pci/devices/{bdf}/precopy")


def device_attribute(bdf: str, name: str) -> str:
    with open(f"/sys/bus/pci/devices/{bdf}/precopy/{name}") as file:
        return file.read().strip()


def has_knobs(bdf: str) -> bool:
    """Modules that were built as a user builds them have none."""
    return os.path.exists(f"{DEBUGFS}/{bdf}/precopy/no_precopy")


def statistic(bdf: str, name: str) -> int:
    """One of the driver's counters, which only ever grow."""
    with open(f"{DEBUGFS}/{bdf}/precopy/stats") as file:
        return next(int(line.split()[1]) for line in file if line.split()[0] == name)


def counters(setup: Setup) -> dict[str, int]:
    """Of all devices together: bytes, and stores that no DMA log could tell of."""
    return {"saved": sum(statistic(pair["source"], "saved_bytes") for pair in setup.pairs),
            "loaded": sum(statistic(pair["target"], "loaded_bytes") for pair in setup.pairs),
            "unlogged": sum(statistic(pair["source"], "dma_unlogged_pages")
                            for pair in setup.pairs)}


FAULTS = ("huge_faults", "read_faults", "write_faults", "mkwrite_faults", "splits")


def fault_counters(bdf: str) -> dict[str, int]:
    return {name: statistic(bdf, name) for name in FAULTS}


def since(bdf: str, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in fault_counters(bdf).items()}


def turn_knob(bdf: str, name: str, value: Any) -> None:
    path = f"{DEBUGFS}/{bdf}/precopy/{name}"
    try:
        trace.write(path, str(value))
    except OSError as error:
        raise Failure(f"cannot set the test knob {path}: {error.strerror}") from error


def knob_is_on(bdf: str, name: str) -> bool:
    with open(f"{DEBUGFS}/{bdf}/precopy/{name}") as file:
        return file.read().strip() in ("Y", "1")


def turn_knobs(setup: Setup) -> None:
    """The knobs apply when QEMU opens the device."""
    if not has_knobs(setup.carrier["source"]) and setup.precopy and not setup.delay_ms:
        return      # as they are without
    for name, bdf in (side for pair in setup.pairs for side in pair.items()):
        turn_knob(bdf, "no_precopy", "N" if setup.precopy else "Y")
        turn_knob(bdf, "startup_delay_ms", setup.delay_ms if name == "target" else 0)


def choose_models(setup: Setup, model: str) -> None:
    """Nobody may have the devices open."""
    for bdf in (bdf for pair in setup.pairs for bdf in pair.values()):
        if device_attribute(bdf, "model") != model:
            with open(f"/sys/bus/pci/devices/{bdf}/precopy/model", "w") as file:
                file.write(model)


def kernel_complaints() -> list[str]:
    """Lines of the kernel's log that must not be there."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace",
                         check=False).stdout
    found = subprocess.run([FIND_SPLATS, "--brief", "-"], input=log, capture_output=True,
                           text=True, errors="replace", check=False)
    if found.returncode > 1 or found.stderr:
        raise Failure(f"{FIND_SPLATS} failed: {found.stderr}")
    return found.stdout.splitlines()


def kvm_works(folder: str) -> bool:
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
                              capture_output=True, timeout=vm.limit(60), check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == status * 2 + 1


def boot(source: VM, guest: Guest) -> tuple[dict[str, str], bool]:
    """Returns what the guest said of its device, and whether KVM is on."""
    source.start()
    guest.attach(source)
    kvm = source.cmd("query-kvm")["enabled"]
    deadline = Deadline(90, "booting the VM and filling the device")
    while (ready := guest.find("READY")) is None:
        source.collect_events()
        deadline.nap()
    return ready, kvm


def prepare(machine: VM, setup: Setup, bandwidth: int = FAST) -> None:
    states = {name: True for name in CAPABILITIES}
    states.update({"switchover-ack": setup.ack, "multifd": setup.multifd})
    machine.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": state} for name, state in states.items()])
    machine.cmd("migrate-set-parameters", **{
        "downtime-limit": setup.downtime_limit_ms,
        "max-bandwidth": bandwidth,
        "multifd-channels": CHANNELS,
        "multifd-compression": setup.compression,
        "avail-switchover-bandwidth": BANDWIDTH})


def connect(source: VM, target: VM, bandwidth: int = FAST) -> str:
    """Everything up to the migrate command; returns what that needs."""
    uri = f"unix:{target.path('stream')}"
    # The source may have been started for another migration.
    prepare(source, target.setup, bandwidth)
    prepare(target, target.setup)
    target.cmd("migrate-incoming", **{"uri": uri, "exit-on-error": False})
    source.forget_events()
    target.forget_events()
    return uri


def driver_said() -> str:
    """The last that the driver told the kernel's log."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace",
                         check=False).stdout
    said = [line for line in log.split("\n") if "precopy-vfio-pci 0000" in line]
    return said[-1] if said else "nothing"


def must_not_fail(source: VM, target: VM) -> None:
    for machine in (source, target):
        if not machine.seen("MIGRATION", status="failed"):
            continue
        why = [f"QEMU ({m.name}) says: {m.cmd('query-migrate').get('error-desc', 'nothing')}"
               for m in (source, target)]
        raise Failure(f"the migration failed on the {machine.name}. {'. '.join(why)}. "
                      f"The driver's last words: {driver_said()}")


def little_ram_left(source: VM, run: Run) -> bool:
    """So little that QEMU may think of a switchover, and asks the device what it has."""
    left = source.cmd("query-migrate").get("ram", {}).get("remaining")
    return left is not None and left < BANDWIDTH * run.setup.downtime_limit_ms // 2000


def begin_anew(source: VM, run: Run) -> None:
    """
    After the target's first acknowledgment, and before QEMU may think of a
    switchover: until now the VM was not to stop for any time at all.
    """
    if (source.has_logged("source_return_path_thread_switchover_acked")
            and little_ram_left(source, run)):
        # QEMU looks at the device only now and then, and is to find it amid this.
        source.cmd("migrate-set-parameters", **{"max-bandwidth": SLOW})
        run.asked_before = source.count_logged(ASKED_AGAIN)
        # QEMU may see it before the knob's write returns.
        began = time.monotonic_ns()
        turn_knob(source.bdf, "reinit", 1)
        run.reinit_at = began
        source.cmd("migrate-set-parameters",
                   **{"downtime-limit": run.setup.downtime_limit_ms})


def hurry_again(source: VM, run: Run) -> None:
    """When QEMU has found that initial data is under way again."""
    if source.count_logged(ASKED_AGAIN) > run.asked_before:
        source.cmd("migrate-set-parameters", **{"max-bandwidth": run.setup.bandwidth})
        run.asked_before = None


def take_sample(source: VM, run: Run) -> None:
    info = source.cmd("query-migrate")
    if "expected-downtime" in info:
        run.expected.append((time.monotonic_ns(), info["expected-downtime"]))
    if "ram" in info and "vfio" in info:
        run.samples.append((time.monotonic_ns(), info["ram"]["transferred"],
                            info["vfio"]["transferred"]))


def wait_migrated(source: VM, target: VM, run: Run) -> None:
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
            take_sample(source, run)
        if run.setup.reinit and not run.reinit_at:
            begin_anew(source, run)
        elif run.asked_before is not None:
            hurry_again(source, run)
        deadline.nap(0.05)


def ask_guest(guest: Guest, machine: VM, word: str, answer: str) -> dict[str, str]:
    """Send the guest a word and wait for its answer."""
    start = len(guest.lines)
    guest.send(machine, word)
    deadline = Deadline(60, f"the guest's answer to {word!r}")
    try:
        while (said := guest.find(answer, start)) is None:
            machine.collect_events()
            deadline.nap()
    except GuestLost:
        raise
    except Failure as failure:
        raise Failure(f"{failure}; {machine.plight()}") from failure
    return said


def watch(machine: VM, guest: Guest, run: Run, since: int) -> None:
    """See the guest write for a while, and for longer if it has not been heard by then."""
    time.sleep(run.setup.linger)
    deadline = Deadline(30, f"hearing from the guest on the {machine.name}")
    while not guest.iterations(since):
        machine.collect_events()
        deadline.nap()


def migrate(source: VM, target: VM, guest: Guest, run: Run) -> None:
    uri = connect(source, target, run.setup.bandwidth)
    if run.setup.reinit:
        source.cmd("migrate-set-parameters", **{"downtime-limit": 0})
    run.marked = ask_guest(guest, source, "mark", "MARKED")
    marked = time.monotonic_ns()
    watch(source, guest, run, marked)
    run.offset = trace.day_minus_mono()
    run.started = time.monotonic_ns()
    run.before = guest.iterations(marked, run.started)
    source.cmd("migrate", uri=uri)
    wait_migrated(source, target, run)
    run.info = source.cmd("query-migrate")


def watch_after(source: VM, target: VM, guest: Guest, run: Run) -> None:
    resumed = trace.qmp_time(target.seen("RESUME"), run.offset)
    watch(target, guest, run, resumed)
    target.collect_events()
    run.heard = guest.first_beat(resumed)
    stopped = trace.qmp_time(source.seen("STOP"), run.offset)
    run.during = guest.iterations(run.started, stopped)
    run.after = guest.iterations(resumed)
    run.silence = guest.longest_silence(run.started)
    run.silence_running = guest.longest_silence(run.started, stopped)
    run.resumed = resumed
    start = len(guest.lines)
    run.result = ask_guest(guest, target, "check", "RESULT")
    run.bad = guest.bad_lines(start)


def collect(run: Run, source: VM, target: VM, tracing: trace.DriverTrace) -> None:
    tracing.stop()
    now = counters(run.setup)
    run.counted = {what: now[what] - run.counted[what] for what in now}
    run.records = tracing.records(target.path("driver-trace"))
    run.records_lost = tracing.lost()
    for side, machine in (("source", source), ("target", target)):
        run.events[side] = machine.events
        run.log[side] = trace.qemu_log(machine.path("trace"), run.offset)


def hop(source: VM, target: VM, guest: Guest, run: Run, say: Say) -> None:
    """Move the VM from a running source to a target, with all evidence."""
    tracing = trace.DriverTrace()
    target.start()
    guest.attach(target)
    run.counted = counters(run.setup)
    faults = fault_counters(source.bdf)
    tracing.start()
    try:
        say("migrating")
        migrate(source, target, guest, run)
        run.tracked = since(source.bdf, faults)
        say("checking every page")
        watch_after(source, target, guest, run)
    except Failure as failure:
        failure.run = run
        raise
    finally:
        collect(run, source, target, tracing)


def cancel(source: VM, target: VM, guest: Guest, run: Run) -> None:
    """Begin a migration, cancel it amid pre-copy, and see the VM go on as if nothing."""
    target.start()
    uri = connect(source, target, SLOW)
    # However late the cancel comes, it must not have ended before.
    source.cmd("migrate-set-parameters", **{"downtime-limit": 0})
    ask_guest(guest, source, "mark", "MARKED")
    source.cmd("migrate", uri=uri)
    deadline = Deadline(60, "reaching pre-copy before the cancellation")
    source.wait_event(deadline, "VFIO_MIGRATION", device_state="pre-copy")
    while not source.cmd("query-migrate").get("vfio", {}).get("transferred"):
        deadline.nap()
    source.cmd("migrate_cancel")
    source.wait_event(Deadline(60, "the cancellation"), "MIGRATION", status="cancelled")
    target.quit()
    run.cancelled = ask_guest(guest, source, "check", "RESULT")
    run.cancelled["state"] = device_attribute(source.bdf, "migration_state")


def migration_thread(machine: VM) -> int:
    """The thread that sends, once it is there."""
    folder = f"/proc/{machine.process.pid}/task"
    deadline = Deadline(20, "the migration's thread")
    while True:
        for thread in os.listdir(folder):
            try:
                with open(f"{folder}/{thread}/comm") as file:
                    name = file.read().strip()
            except FileNotFoundError:       # it ended just now
                continue
            if name in ("mig/src/main", "live_migration"):
                return int(thread)
        machine.must_live()
        deadline.nap()


def hold_the_stop(machine: VM, thread: int) -> subprocess.Popen:
    """
    When this thread stops the VM, it sends a signal to each processor's thread. Hold
    it there until the returned strace ends: between QEMU's decision to switch over
    and its last look at the device before it does.
    """
    said = machine.path("strace")
    with open(said, "wb") as file:
        strace = subprocess.Popen(["strace", "-p", str(thread), "-e", "trace=tgkill",
                                   "-e", f"inject=tgkill:delay_enter={HELD_US}"],
                                  stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    wait_said(machine, strace, said, b"attached", "strace holding the migration's thread")
    return strace


def wait_said(machine: VM, strace: subprocess.Popen, said: str, word: bytes, what: str) -> None:
    """Until the strace of a machine wrote this."""
    deadline = Deadline(60, what)
    while True:
        with open(said, "rb") as file:
            text = file.read()
        if word in text:
            return
        machine.collect_events()
        if strace.poll() is not None:
            raise Failure(f"{what}: strace says {text.decode(errors='replace')!r}, QEMU "
                          f"{machine.cmd('query-migrate')}, the driver {driver_said()!r}")
        deadline.nap()


def wait_acked(source: VM) -> None:
    deadline = Deadline(60, "the target's acknowledgment")
    while not source.has_logged("source_return_path_thread_switchover_acked"):
        source.collect_events()
        deadline.nap()


def restart_in_between(source: VM, run: Run) -> None:
    """
    Begin the device's initial data anew after the target's acknowledgment, when
    QEMU has decided to switch over and has not done so.  Until the thread can be
    held, the VM is not to stop for any time at all.
    """
    thread = migration_thread(source)
    wait_acked(source)
    strace = hold_the_stop(source, thread)
    try:
        source.cmd("migrate-set-parameters",
                   **{"downtime-limit": run.setup.downtime_limit_ms})
        wait_said(source, strace, source.path("strace"), b"tgkill(",
                  "the decision to switch over")
        turn_knob(source.bdf, "reinit", 1)
    finally:
        strace.terminate()
        strace.wait()


def spoil(source: VM, target: VM, guest: Guest, run: Run) -> None:
    """
    A migration whose source begins anew between the target's acknowledgment and
    the switchover: the acknowledgment is worth nothing any more, and QEMU gives up.
    """
    target.start()
    uri = connect(source, target)
    source.cmd("migrate-set-parameters", **{"downtime-limit": 0})
    ask_guest(guest, source, "mark", "MARKED")
    source.cmd("migrate", uri=uri)
    restart_in_between(source, run)
    deadline = Deadline(60, "the end of a migration that cannot succeed")
    while not (ended := source.seen("MIGRATION", status="failed")
               or source.seen("MIGRATION", status="completed")):
        source.collect_events()
        deadline.nap()
    if ended["data"]["status"] != "failed":
        raise Failure("a migration that should have failed, because of a restart between the "
                      "ack and the switchover, was completed")
    run.spoilt = {"why": source.cmd("query-migrate").get("error-desc", "nothing"),
                  "stopped": bool(source.seen("STOP"))}
    source.wait_event(Deadline(30, "the VM going on at the source"), "RESUME")
    run.spoilt.update(ask_guest(guest, source, "check", "RESULT"))
    run.spoilt["state"] = device_attribute(source.bdf, "migration_state")
    target.quit()


def disturb(target: VM, guest: Guest, run: Run) -> None:
    """
    Change bytes of the device behind the guest's back: its check has to notice,
    or it would not have noticed a fault of the driver either.
    """
    base = int(run.ready["bar"], 0)
    mapped = target.monitor(f"gpa2hva {base:#x}")
    address = int(mapped.split()[-1], 0)
    target.cmd("stop")
    with open(f"/proc/{target.process.pid}/mem", "r+b", buffering=0) as memory:
        for page in run.ready["sample"].split(","):
            memory.seek(address + int(page) * 4096 + 64)
            old = memory.read(1)
            memory.seek(-1, os.SEEK_CUR)
            memory.write(bytes([old[0] ^ 1]))
    start = len(guest.lines)
    guest.send(target, "check")
    target.cmd("cont")
    deadline = Deadline(60, "the guest's check of a changed device")
    while (said := guest.find("RESULT", start)) is None:
        target.collect_events()
        deadline.nap()
    run.disturbed = said


def journey(setup: Setup, folder: str, machines: list[VM], guest: Guest, say: Say,
            runs: list[Run]) -> None:
    """Boot, migrate, check; machines takes every QEMU that was started, runs what was seen."""
    def machine(name: str, side: str, incoming: bool = True) -> VM:
        machines.append(VM(name, setup.carrier[side], folder, setup, incoming))
        return machines[-1]

    source = machine("source", "source", incoming=False)
    say("booting the VM")
    faults = fault_counters(source.bdf)
    ready, kvm = boot(source, guest)
    runs.append(Run(setup, folder, ready=ready, kvm=kvm, at_rest=since(source.bdf, faults)))
    if setup.cancel_first:
        say("beginning a migration and cancelling it")
        cancel(source, machine("cancelled", "target"), guest, runs[0])
    if setup.spoil_first:
        say("beginning a migration that must fail after its acknowledgment")
        spoil(source, machine("spoilt", "target"), guest, runs[0])
    target = machine("target", "target")
    hop(source, target, guest, runs[0], say)
    for number, changes in enumerate(setup.then):
        source.quit()
        setup = setup.reversed(**changes)
        turn_knobs(setup)
        runs.append(Run(setup, folder, ready=ready, kvm=kvm))
        source, target = target, VM(f"target{number + 2}", setup.carrier["target"],
                                    folder, setup)
        machines.append(target)
        hop(source, target, guest, runs[-1], say)
    if setup.disturb:
        disturb(machines[-1], guest, runs[-1])


def go(setup: Setup, folder: str, say: Say = lambda text: None,
       seen: list[Run] = None) -> list[Run]:
    """
    A journey, with all cleaned up behind it; returns its Runs or raises Failure. seen
    takes the Runs as they begin, so that those before a Failure are not lost.
    """
    folders = iter((folder, folder + "-again"))
    return despite_loss(lambda: go_once(setup, next(folders), say, [] if seen is None else seen), say)


def go_once(setup: Setup, folder: str, say: Say, runs: list[Run]) -> list[Run]:
    os.makedirs(folder)
    machines: list[VM] = []
    runs.clear()
    guest = Guest()
    old_complaints = len(kernel_complaints())
    choose_models(setup, setup.model)
    turn_knobs(setup)
    try:
        journey(setup, folder, machines, guest, say, runs)
    except Failure as failure:
        for machine in machines:
            machine.must_not_be_lost(failure)
        raise
    finally:
        for machine in machines:
            machine.quit()
        guest.close()
        choose_models(setup, Setup.model)
    for run in runs:
        run.end_state = {name: device_attribute(bdf, "migration_state")
                         for name, bdf in setup.carrier.items()}
        run.complaints = kernel_complaints()[old_complaints:]
    return runs
