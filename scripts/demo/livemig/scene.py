# SPDX-License-Identifier: GPL-2.0-only
"""
A VM to which things happen, one after the other, and where it is found then.

Whatever happened, the VM must run at exactly one side, and its device must be right
there, every byte.  Only the guest's own check decides that, see guest.c.
"""
from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qemu.qmp import QMPError

from . import migration, vm
from .migration import device_attribute
from .proxy import Proxy
from .vm import VM, Deadline, Failure, Guest

if TYPE_CHECKING:
    from .migration import Setup
    from .vm import Say

ENDED = ("completed", "failed", "cancelled")
HEARINGS = 5
GOOD = ("lost", "corrupt", "stray", "live_bad")


class Line(Guest):
    """The guest's line, which also remembers when it last heard from whom."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}    # name of the VM -> monotonic seconds
        super().__init__()

    def _listen(self) -> None:
        while not self.closing:
            for key, _ in self.selector.select(0.1):
                data = self._receive(key.data)
                if data:
                    name = next(n for n, s in self.sockets.items() if s is key.data)
                    self.heard[name] = time.monotonic()
                    self._take(data)

    def forget_half_a_line(self) -> None:
        """The guest that began it will not end it."""
        with self.lock:
            self.rest = b""


class Scene:
    """One VM, and all QEMU that have to do with it."""

    def __init__(self, setup: Setup, folder: str) -> None:
        self.setup = setup
        self.folder = folder
        self.number = 0
        self.machines: list[VM] = []
        self.proxies: list[Proxy] = []
        self.lost: set[str] = set()               # functions whose slots were switched off
        self.deaf: set[str] = set()               # names of QEMU whose monitor cannot answer
        self.guest: Line = None
        self.source: VM = None              # the QEMU that has the guest
        self.complaints = 0
        self.before: dict[str, int] = {}                # counted when the last migration began
        self.seed = 0
        self.length: int = None              # of a migration's stream, as far as is known

    # QEMU come and go

    def machine(self, bdf: str, incoming: bool, kind: type[VM] = VM) -> Any:
        """A QEMU; somebody has to start it."""
        self.number += 1
        machine = kind(f"vm{self.number}", bdf, self.folder, self.setup, incoming)
        self.machines.append(machine)
        return machine

    def boot(self, **changes: Any) -> None:
        """A new VM, on the first device, and by another kind of IOMMU than the last."""
        self.close()
        self.setup = dataclasses.replace(self.setup, **{"iommufd": not self.setup.iommufd, **changes})
        self.complaints = len(migration.kernel_complaints())
        self.guest = Line()
        self.source = self.machine(self.setup.carrier["source"], incoming=False)
        migration.boot(self.source, self.guest)

    def other_device(self) -> str:
        return next(bdf for bdf in self.setup.carrier.values() if bdf != self.source.bdf)

    def target(self, kind: type[VM] = VM) -> Any:
        """A QEMU on the other device, ready to be migrated to."""
        machine = self.machine(self.other_device(), incoming=True, kind=kind)
        machine.start()
        self.guest.attach(machine)
        return machine

    def kill(self, machine: VM) -> None:
        """As the OOM killer would do it."""
        machine.process.kill()
        deadline = Deadline(60, f"the end of QEMU ({machine.name}) after it was killed")
        while machine.process.poll() is None:
            deadline.nap()
        try:
            machine.qmp.close()
        except (OSError, EOFError, QMPError):
            pass                        # it says that there is nobody

    def end(self, machine: VM) -> None:
        if machine.name in self.deaf:
            self.kill(machine)
        machine.quit()
        self.machines.remove(machine)

    def end_others(self) -> None:
        for machine in [m for m in self.machines if m is not self.source]:
            self.end(machine)
        for proxy in self.proxies:
            proxy.close()
        self.proxies = []
        for bdf in self.setup.carrier.values():
            self.calm(bdf)

    def close(self) -> None:
        self.source = None
        self.end_others()
        if self.guest:
            self.guest.close()
        self.guest = None

    def calm(self, bdf: str) -> None:
        if bdf in self.lost:
            return
        for knob in ("startup_delay_ms", "slow_stop_ms", "fail_load_at", "fail_save_at"):
            migration.turn_knob(bdf, knob, 0)

    # A migration

    def acks(self) -> int:
        with open(self.source.path("trace"), errors="replace") as file:
            return file.read().count("source_return_path_thread_switchover_acked")

    def sent(self) -> Any:
        return migration.statistic(self.source.bdf, "saved_bytes")

    def begin(self, target: VM, proxy: Proxy = None, **parameters: Any) -> None:
        """
        The migrate command is given; parameters are QEMU's, with _ for -. With pause it
        stops before the switchover.
        """
        self.before = {"acks": self.acks(), "sent": self.sent()}
        bandwidth = parameters.pop("max_bandwidth", migration.FAST)
        pause = {"capability": "pause-before-switchover", "state": parameters.pop("pause", False)}
        uri = migration.connect(self.source, target, bandwidth)
        self.source.cmd("migrate-set-capabilities", capabilities=[pause])
        if parameters:
            self.source.cmd("migrate-set-parameters",
                            **{k.replace("_", "-"): v for k, v in parameters.items()})
        self.source.cmd("migrate", uri=proxy.uri if proxy else uri)

    def begin_slowly(self, target: VM) -> None:
        """A migration that stays in pre-copy until somebody lets it go on."""
        self.begin(target, max_bandwidth=migration.SLOW, downtime_limit=0)

    def line_to(self, target: VM, at: int = None, action: Callable[[Proxy], Any] = None) -> Proxy:
        proxy = Proxy(target.path("proxy"), target.path("stream"), at, action)
        self.proxies.append(proxy)
        return proxy

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
        """Until it is true of the source, which must live."""
        deadline = Deadline(seconds, what)
        while not condition():
            self.source.collect_events()
            deadline.nap()

    def status(self, machine: VM = None) -> str:
        return (machine or self.source).cmd("query-migrate").get("status")

    def wait_in_use(self) -> None:
        """Until the source's device is in pre-copy, and some of its data was sent."""
        def sent() -> Any:
            if self.status() in ENDED:
                raise Failure(f"the migration {self.status()} before data flowed; QEMU says: "
                              + self.why())
            return self.sent() > self.before["sent"]
        self.wait(sent, "reaching pre-copy")

    def wait_acked(self) -> None:
        self.wait(lambda: self.acks() > self.before["acks"], "the target's acknowledgment")

    def wait_ended(self) -> str:
        self.wait(lambda: self.status() in ENDED, "the end of the migration", 120)
        return self.status()

    def why(self) -> str:
        return self.source.cmd("query-migrate").get("error-desc", "nothing")

    def must_end(self, *wanted: Any) -> str:
        ended = self.wait_ended()
        if ended not in wanted:
            raise Failure(f"the migration {ended}, it should be {' or '.join(wanted)}; "
                          f"QEMU says: {self.why()}")
        return ended

    def moved(self, target: VM) -> None:
        """The migration has completed: the guest is there now."""
        self.wait(lambda: target.cmd("query-status")["status"] != "inmigrate",
                  "the target taking over")
        self.source = target

    def end_of(self, target: VM) -> str:
        """However it ended, that is where the guest has to be."""
        ended = self.wait_ended()
        if ended == "completed":
            self.moved(target)
        return ended

    def phase(self, target: VM) -> str:
        """Where the two devices are now, in words."""
        return (f"source {device_attribute(self.source.bdf, 'migration_state')}, "
                f"target {device_attribute(target.bdf, 'migration_state')}, "
                f"startup {device_attribute(target.bdf, 'startup')}")

    # The judgement

    def mark(self) -> None:
        migration.ask_guest(self.guest, self.source, "mark", "MARKED")

    def running(self) -> list[VM]:
        return [m for m in self.machines if m.name not in self.deaf
                and m.process.poll() is None
                and m.cmd("query-status")["status"] == "running"]

    def one_side(self) -> str:
        """The guest runs where it should be, and nowhere else."""
        running = self.running()
        if running != [self.source]:
            return f"it runs at {len(running)} sides: {', '.join(m.name for m in running)}"
        # What was said before may be read only now; who runs is heard again and again.
        for _ in range(HEARINGS):
            others = self.heard_elsewhere()
            if not others:
                return None
        return f"it is also heard from {', '.join(others)}"

    def heard_elsewhere(self) -> list[str]:
        """Names of those that the guest is heard from until it is heard from the source."""
        since = time.monotonic()
        self.wait(lambda: self.guest.heard.get(self.source.name, 0) > since,
                  "hearing from the guest")
        return [name for name, at in self.guest.heard.items()
                if at > since and name != self.source.name]

    def nowhere(self) -> str:
        running = self.running()
        return f"it still runs at {running[0].name}" if running else None

    def all_right(self) -> str:
        """Every byte of the device, as the guest sees it; and it has gone on writing."""
        start = len(self.guest.lines)
        result = migration.ask_guest(self.guest, self.source, "check", "RESULT")
        wrong = [f"{result[what]} {what}" for what in GOOD if result[what] != "0"]
        if result["good"] != result["pages"]:
            wrong.append(f"{result['good']} of {result['pages']} pages are right")
        if result["since_mark"] == "0":
            wrong.append("the guest did not write any more")
        return "; ".join(wrong + self.guest.bad_lines(start)) or None

    def at_rest(self) -> str:
        """All devices that were not switched off are in RUNNING, whether or not they are open."""
        deadline = Deadline(30, "the devices getting back to RUNNING")
        states: dict[str, str] = {}
        while set(states.values()) != {"RUNNING"}:
            states = {bdf: device_attribute(bdf, "migration_state")
                      for bdf in self.setup.carrier.values() if bdf not in self.lost}
            try:
                deadline.nap()
            except Failure:
                return ", ".join(f"{bdf} is in {state}" for bdf, state in states.items())
        return None

    def quiet(self) -> str:
        return "; ".join(migration.kernel_complaints()[self.complaints:][:3]) or None

    def verdict(self) -> str:
        """What is wrong, or None.  The other QEMU are gone then."""
        gone = self.source is None
        found = self.nowhere() if gone else self.one_side()
        self.end_others()
        checks = (self.at_rest, self.quiet) if gone else (self.all_right, self.at_rest, self.quiet)
        return found or next((wrong for check in checks if (wrong := check())), None)


def small(bdfs: Iterable[str], mib: int) -> None:
    """Devices of that size take less time to be checked."""
    for bdf in bdfs:
        with open(f"/sys/bus/pci/devices/{bdf}/precopy/memory_size", "w") as file:
            file.write(str(mib << 20))


def carriers() -> dict[str, str]:
    """The devices that l1-run has bound, or the first two that are bound."""
    driver = "/sys/bus/pci/drivers/precopy-vfio-pci"
    found = os.environ.get("PRECOPY_CARRIERS", "").split() or \
        sorted(name for name in os.listdir(driver) if ":" in name)
    if len(found) < 2:
        raise Failure("two devices must be bound to precopy-vfio-pci")
    return dict(zip(("source", "target"), found))


def setup(args: argparse.Namespace, folder: str, say: Say, **more: Any) -> migration.Setup:
    """What all VMs of a scene have in common."""
    if migration.kvm_works(folder):
        accel = "kvm"
    else:
        accel = "tcg"
        say("/dev/kvm does not work here, the VM runs under TCG")
    vm.patience = args.patience
    return migration.Setup(kernel=args.kernel, initrd=args.initrd, carrier=carriers(),
                           accel=accel, **more)
