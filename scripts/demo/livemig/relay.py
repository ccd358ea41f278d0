# SPDX-License-Identifier: GPL-2.0-only
"""
A VM that is saved to a file on one kernel and goes on from that file on another.

A leg is what one kernel does: the VM boots, or is loaded from the file of the last leg;
its guest compares every byte of the device, and of the RAM that the device writes by
DMA, with what it remembers; and the VM is saved for the next leg while its guest writes.
"""
from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import migration
from .migration import Run, Setup
from .vm import VM, Deadline, Failure, Guest

if TYPE_CHECKING:
    from .vm import Say

# What KVM makes of the model "host" depends on the kernel.
CPU = "qemu64,-svm"
IN_USE_MIB = 8
Verdicts = Iterator[tuple[str, str]]


@dataclass
class Notes:
    """What the next leg has to know; beside the stream, in a file."""
    kernel: str
    ready: dict = field(default_factory=dict)       # what the guest said first
    rounds: int = 0             # how often the device had written all of its RAM
    iterations: int = 0         # the guest's page writes

    @staticmethod
    def read(folder: str) -> Notes:
        with open(os.path.join(folder, "notes"), encoding="utf-8") as file:
            return Notes(**json.load(file))

    def write(self, folder: str) -> None:
        with open(os.path.join(folder, "notes"), "w", encoding="utf-8") as file:
            json.dump(vars(self), file)


def stream(folder: str) -> str:
    return os.path.join(folder, "stream")


class Leg:
    """One kernel's part. Folders are where a stream and its notes are, or None."""

    def __init__(self, common: dict[str, Any], folder: str, loads: str, saves: str) -> None:
        self.loads, self.saves = loads, saves
        self.setup = Setup(model="engine", iommufd=os.path.exists("/dev/iommu"), cpu=CPU,
                           in_use_mib=IN_USE_MIB, linger=0.5, **common)
        self.run, self.guest = Run(self.setup, folder), Guest()
        side = "target" if loads else "source"
        self.vm = VM(side, self.setup.carrier[side], folder, self.setup, bool(loads))
        self.notes = Notes.read(loads) if loads else Notes("")
        self.kernel = os.uname().release

    # The beginning

    def boot(self) -> Verdicts:
        self.notes.ready, self.run.kvm = migration.boot(self.vm, self.guest)
        yield from self.under_kvm()

    def load(self) -> Verdicts:
        self.vm.start()
        self.guest.attach(self.vm)
        self.run.kvm = self.vm.cmd("query-kvm")["enabled"]
        self.prepare()
        self.vm.cmd("migrate-incoming", uri="file:" + stream(self.loads))
        self.vm.wait_event(Deadline(90, "loading the VM"), "RESUME")
        self.guest.hear_again()
        yield from self.under_kvm()
        yield "another kernel has saved the VM", \
            f"{self.kernel} has" if self.notes.kernel == self.kernel else ""

    def under_kvm(self) -> Verdicts:
        yield "the VM runs under KVM", "" if self.run.kvm or self.setup.accel != "kvm" else "it does not"

    # The guest's check

    def check(self) -> Verdicts:
        migration.watch(self.vm, self.guest, self.run, time.monotonic_ns())
        start = len(self.guest.lines)
        said = migration.ask_guest(self.guest, self.vm, "check", "RESULT")
        bad = [f"{said[what]} {what}" for what in ("lost", "corrupt", "stray", "live_bad") if said[what] != "0"]
        if said["good"] != said["pages"]:
            bad.append(f"{said['good']} of {said['pages']} pages are right")
        yield "every byte of the device is right", "; ".join(bad + self.guest.bad_lines(start))
        yield "every byte that the device wrote to the VM's RAM is right", \
            "" if int(said["dma_pages"]) and said["dma_bad"] == "0" else str(said)
        yield "guest and device go on writing", self.stand(said)

    def stand(self, said: dict[str, str]) -> str:
        """Both must have done more than when the VM was saved."""
        done, rounds = int(said["iterations"]), int(said["dma_rounds"])
        if done <= self.notes.iterations or rounds <= self.notes.rounds:
            return f"{done} page writes after {self.notes.iterations}, {rounds} rounds after {self.notes.rounds}"
        return ""

    # The end

    def save(self) -> Verdicts:
        self.prepare()
        self.vm.forget_events()
        marked = migration.ask_guest(self.guest, self.vm, "mark", "MARKED")
        self.notes.rounds, self.notes.iterations = int(marked["dma_rounds"]), int(marked["iterations"])
        began = time.monotonic_ns()
        self.vm.cmd("migrate", uri="file:" + stream(self.saves))
        self.wait_saved()
        self.notes.kernel = self.kernel
        self.notes.write(self.saves)
        states = [event["data"].get("device-state") for event in self.vm.events
                  if event["event"] == "VFIO_MIGRATION"]
        yield "the device is saved in pre-copy", "" if "pre-copy" in states else f"only {states}"
        yield "the guest writes meanwhile", "" if self.guest.iterations(began) else "it does not"

    def prepare(self) -> None:
        """A file gives no answer."""
        self.vm.cmd("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.vm.cmd("migrate-set-parameters", **{
            "downtime-limit": self.setup.downtime_limit_ms, "max-bandwidth": migration.FAST,
            "avail-switchover-bandwidth": migration.BANDWIDTH})

    def wait_saved(self) -> None:
        deadline = Deadline(90, "saving the VM")
        while not self.vm.seen("MIGRATION", status="completed"):
            self.vm.collect_events()
            if self.vm.seen("MIGRATION", status="failed"):
                raise Failure(f"it cannot be saved: {self.vm.cmd('query-migrate').get('error-desc')}. "
                              f"The driver's last words: {migration.driver_said()}")
            deadline.nap(0.05)

    def notices(self) -> Verdicts:
        """The last check, of bytes that are wrong."""
        self.run.ready = self.notes.ready
        migration.disturb(self.vm, self.guest, self.run)
        found = self.run.disturbed
        yield "the guest's check notices bytes that were changed behind its back", \
            "" if found["stray"] == "1" and found["good"] != found["pages"] else str(found)

    def all(self, say: Say) -> Verdicts:
        say("loading the VM" if self.loads else "booting the VM")
        yield from self.load() if self.loads else self.boot()
        yield from self.check()
        say(f"it did {self.notes.iterations} page writes and {self.notes.rounds} rounds of DMA before")
        yield from self.save() if self.saves else self.notices()


def go(common: dict[str, Any], folder: str, loads: str, saves: str, say: Say) -> Verdicts:
    """Pairs of a property and what is wrong with it, if anything."""
    os.makedirs(folder)
    complaints = len(migration.kernel_complaints())
    leg = Leg(common, folder, loads, saves)
    migration.choose_models(leg.setup, leg.setup.model)
    try:
        yield from leg.all(say)
    finally:
        leg.vm.quit()
        leg.guest.close()
        migration.choose_models(leg.setup, Setup.model)
    yield "the kernel had nothing to complain of", "; ".join(migration.kernel_complaints()[complaints:][:3])
