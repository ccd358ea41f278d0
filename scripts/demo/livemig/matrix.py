# SPDX-License-Identifier: GPL-2.0-only
"""
Every way that a VM with our devices may migrate: which QEMU, which IOMMU interface,
which transport, and what is agreed on before.

A trip is a VM; a cell is one of its migrations, which the next begins where the last
has ended. What QEMU refuses is in the table too, with its words.
"""
from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import judge, migration
from .evidence import Evidence
from .vm import VM, Deadline, Failure, Guest, Qemu, despite_loss

if TYPE_CHECKING:
    from .migration import Run
    from .vm import Say

RELEASE = Qemu("/opt/release/usr/bin/qemu-system-x86_64", ("/opt/release/usr/share/qemu",))
NEWER = Qemu()
ENDED = ("completed", "failed")
STAMP = re.compile(r"^\S+T\S+Z qemu-system-x86_64: |^qemu-system-x86_64: ")
IN_USE_MIB = 8
MEMORY_MIB = 16                 # of each device
# For a guest whose each access is an exit to QEMU
SMALL = "unit_kib=64 in_use_kib=256"
# What both of them know, and what only the newer does
COMMON_MACHINE, OLDER_MACHINE = "pc-q35-10.0", "pc-q35-9.2"


@dataclass(frozen=True)
class Cell:
    """One migration."""
    source: str                 # "release" or "newer"
    target: str
    multifd: bool = False
    ack: bool = True
    compression: str = "none"

    @property
    def transport(self) -> str:
        if not self.multifd:
            return "socket"
        return "multifd" if self.compression == "none" else f"multifd, {self.compression}"


@dataclass(frozen=True)
class Trip:
    """A VM, and where it goes."""
    cells: tuple
    machine: str = COMMON_MACHINE
    iommufd: bool = False
    two: bool = False           # devices
    cpus: int = 1
    precopy: bool = True
    no_mmap: bool = False       # each access is an exit to QEMU
    tcg: bool = False           # emulated SVM gives KVM exits that it cannot handle

    @property
    def remarks(self) -> list[str]:
        said = {"no pre-copy": not self.precopy, "x-no-mmap": self.no_mmap,
                f"{self.cpus} processors": self.cpus > 1, "under TCG": self.tcg}
        return [text for text, true in said.items() if true]

    def by_multifd(self, cell: Cell) -> bool:
        """Does the device's state go by multifd as well? Old machine types do not do that."""
        return cell.multifd and cell.compression == "none" and self.machine != OLDER_MACHINE


def round_trips(modes: Iterable[tuple[bool, bool]]) -> tuple[Cell, ...]:
    """From each QEMU to each, in all modes, always on from where it is."""
    return tuple(Cell(source, target, multifd, ack) for multifd, ack in modes
                 for source, target in (("release", "release"), ("release", "newer"),
                                        ("newer", "newer"), ("newer", "release")))


def stay(modes: Iterable[tuple[bool, bool]], **more: Any) -> tuple[Cell, ...]:
    return tuple(Cell("newer", "newer", multifd, ack, **more) for multifd, ack in modes)


MODES = tuple(itertools.product((False, True), (True, False)))

SHORT = (
    Trip((Cell("release", "newer"), Cell("newer", "release", True, False))),
    Trip(stay(((True, True),)), machine="q35", iommufd=True, two=True),
)

# All ways that there are, with what all have
COMMON = tuple(
    trip for two in (False, True) for iommufd in (False, True) for trip in (
        Trip(round_trips(MODES), iommufd=iommufd, two=two),
        Trip(stay(MODES), machine="q35", iommufd=iommufd, two=two))
)
ALL = COMMON + (
    Trip((Cell("release", "newer", True), Cell("newer", "release", True)), precopy=False, two=True),
    Trip((Cell("release", "newer"), Cell("newer", "release", True)), cpus=2),
    Trip((Cell("release", "newer", True), Cell("newer", "release")), no_mmap=True, tcg=True),
    Trip((Cell("release", "newer", True), Cell("newer", "release", True)), machine=OLDER_MACHINE),
    Trip(stay(((True, True),), compression="zlib"), machine="q35"),
)


@dataclass
class Result:
    """What is known of a cell."""
    trip: Trip
    cell: Cell
    wrong: list = dataclasses.field(default_factory=list)
    facts: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0


# What must be true of a cell: once, and of each device

OF_ALL = (judge.kvm, judge.trace_complete, judge.completed, judge.together, judge.carried,
          judge.bytes_agree, judge.in_use, judge.guest_wrote, judge.all_pages, judge.dma_right,
          judge.device_idle,
          judge.kernel_quiet)
OF_EACH = (judge.source_states, judge.target_states, judge.startup)


def judged(run: Run) -> list[tuple]:
    """(property, what is wrong or None, why it was skipped or None)"""
    of_each: tuple[Callable, ...] = OF_EACH
    of_all = OF_ALL + (judge.unasked,) * (not run.setup.ack)
    if run.setup.precopy:
        of_each += (judge.initial_bytes,) + (judge.acknowledged,) * run.setup.ack
    evidence = Evidence(run)
    found = judge.verdicts(evidence, of_all)
    for device in evidence.devices():
        name = f" ({device.pair['source']})" if run.setup.second else ""
        found += [(prop + name, *rest) for prop, *rest in judge.verdicts(device, of_each)]
    return found


def facts(run: Run) -> dict[str, Any]:
    """The numbers of a cell."""
    devices = Evidence(run).devices()
    sizes = [device.sizes() for device in devices]
    return {
        "pause_ms": (max(d.resumed() for d in devices) - min(d.stopped() for d in devices)) / 1e6,
        "qemu_downtime_ms": run.info["downtime"],
        "total_ms": run.info["total-time"],
        **{phase: sum(size[phase] for size in sizes) for phase in sizes[0]},
        "ram": run.info["ram"]["transferred"] - sum(sum(size.values()) for size in sizes),
        "multifd": run.info["ram"]["multifd-bytes"],
    }


class Traveller:
    """Makes a trip, cell by cell; after a failure another VM goes on."""

    def __init__(self, common: dict[str, Any], pairs: list[dict[str, str]], folder: str) -> None:
        self.common = common
        self.pairs = pairs
        self.folder = folder
        self.number = 0
        self.guest: Guest = None
        self.source: VM = None
        self.where: str = None               # which QEMU the source is
        self.setup: migration.Setup = None
        self.ready: dict[str, str] = None
        self.kvm: bool = None

    def at(self, trip: Trip, cell: Cell) -> migration.Setup:
        """The first migration of a VM."""
        qemu = {"release": RELEASE, "newer": NEWER}
        common = {**self.common, "accel": "tcg"} if trip.tcg else self.common
        return migration.Setup(
            model="engine", carrier=self.pairs[0], second=self.pairs[1] if trip.two else {},
            qemu={"source": qemu[cell.source], "target": qemu[cell.target]},
            machine=trip.machine, iommufd=trip.iommufd, cpus=trip.cpus, precopy=trip.precopy,
            device_options=",x-no-mmap=on" * trip.no_mmap, multifd=cell.multifd, ack=cell.ack,
            device_by_multifd=trip.by_multifd(cell), compression=cell.compression, linger=0.2,
            in_use_mib=0 if trip.no_mmap else IN_USE_MIB, read_mib=MEMORY_MIB * (1 + trip.two),
            guest_options=SMALL * trip.no_mmap, **common)

    def machine(self, side: str) -> VM:
        self.number += 1
        return VM(f"vm{self.number}", self.setup.carrier[side], self.folder, self.setup)

    def boot(self, trip: Trip, cell: Cell, say: Say) -> None:
        self.setup = self.at(trip, cell)
        migration.choose_models(self.setup, self.setup.model)
        migration.turn_knobs(self.setup)
        self.guest = Guest()
        self.source = self.machine("source")
        self.source.incoming = False
        self.ready, self.kvm = migration.boot(self.source, self.guest)
        say("booted")

    def go_on(self, trip: Trip, cell: Cell) -> None:
        """From where the last migration ended."""
        here = self.setup.reversed()
        there = self.at(trip, cell)
        self.setup = dataclasses.replace(there, carrier=here.carrier, second=here.second)
        migration.turn_knobs(self.setup)

    def hop(self, trip: Trip, cell: Cell, say: Say) -> migration.Run:
        if self.source and self.where != cell.source:
            self.end()                  # what lies between was made before
        if self.source:
            self.go_on(trip, cell)
        else:
            self.boot(trip, cell, say)
        complaints = len(migration.kernel_complaints())
        run = migration.Run(self.setup, self.folder, ready=self.ready, kvm=self.kvm)
        target = self.machine("target")
        source, self.source = self.source, None
        try:
            migration.hop(source, target, self.guest, run, say)
            self.source, self.where = target, cell.target
            say("checked")
        except Failure as failure:
            source.must_not_be_lost(failure)
            target.must_not_be_lost(failure)
            raise
        finally:
            source.quit()
            if not self.source:
                target.quit()
        run.end_state = {pair["source"]: migration.device_attribute(pair["source"],
                                                                    "migration_state")
                         for pair in self.setup.pairs}
        run.complaints = migration.kernel_complaints()[complaints:]
        return run

    def end(self) -> None:
        if self.source:
            self.source.quit()
        if self.guest:
            self.guest.close()
            migration.choose_models(self.setup, migration.Setup.model)
        self.source = self.guest = None

    def hop_or_end(self, trip: Trip, cell: Cell, say: Say) -> migration.Run:
        try:
            return self.hop(trip, cell, say)
        except (Failure, OSError):
            self.end()
            raise

    def one(self, trip: Trip, cell: Cell, say: Say) -> Result:
        result, began = Result(trip, cell), time.monotonic()
        try:
            run = despite_loss(lambda: self.hop_or_end(trip, cell, say), say)
            result.wrong = [f"it should be so that {name}, but: {wrong}"
                            for name, wrong, _ in judged(run) if wrong]
            # Without all of the evidence there are no numbers either.
            result.facts = {} if result.wrong else facts(run)
        except (Failure, OSError) as failure:   # a QEMU that is gone breaks its lines
            result.wrong = [str(failure)]
            self.end()
        result.seconds = time.monotonic() - began
        return result


# What QEMU refuses

@dataclass(frozen=True)
class Refusal:
    """Something that cannot be, and the words in which QEMU has to say so."""
    what: str
    words: str
    qemu: Qemu = NEWER
    machine: str = COMMON_MACHINE
    device_options: str = ""
    multifd: bool = False
    capabilities: tuple = ()    # (name, state): more than a migration usually has
    arguments: tuple = ()       # of a QEMU that ends at once, instead of a migration


ONLY_BY_MULTIFD = ",x-migration-multifd-transfer=on"
REFUSALS = (
    Refusal("The newer QEMU's machine type", "unsupported machine type", qemu=RELEASE,
            arguments=("-nodefaults", "-display", "none", "-M", "pc-q35-11.1")),
    Refusal("postcopy-ram", "not supported with postcopy", qemu=RELEASE,
            capabilities=(("postcopy-ram", True),)),
    Refusal("postcopy-ram", "not supported with postcopy", capabilities=(("postcopy-ram", True),)),
    Refusal("background-snapshot", "background",
            capabilities=(("background-snapshot", True), ("switchover-ack", False), ("return-path", False))),
    Refusal("switchover-ack without return-path", "requires capability 'return-path'",
            capabilities=(("return-path", False),)),
    Refusal("x-migration-multifd-transfer=on without multifd", "unsupported in the current config",
            device_options=ONLY_BY_MULTIFD),
    Refusal(f"x-migration-multifd-transfer=on with {OLDER_MACHINE}",
            "unsupported in the current config", qemu=RELEASE, machine=OLDER_MACHINE,
            device_options=ONLY_BY_MULTIFD, multifd=True),
)


def attempt(refusal: Refusal, source: VM, target: VM) -> list[str]:
    """A migration; returns all that QEMU says at its end."""
    uri = migration.connect(source, target)
    source.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": state} for name, state in refusal.capabilities])
    source.cmd("migrate", uri=uri)
    said = []
    for machine in (source, target):
        deadline = Deadline(60, "the end of a migration that cannot succeed")
        while (info := machine.cmd("query-migrate")).get("status") not in ENDED:
            deadline.nap()
        said.append(info.get("error-desc", info["status"]))
    # QEMU 10.0 only prints why.
    return said + target.last_words().split(" / ")


def try_refusal(refusal: Refusal, common: dict[str, Any], carrier: dict[str, str], folder: str) -> tuple[str, str]:
    """What QEMU said, and what is wrong or None."""
    if refusal.arguments:
        said = refusal.qemu.says(*refusal.arguments).split("\n")
    else:
        setup = migration.Setup(carrier=carrier, machine=refusal.machine, multifd=refusal.multifd,
                                qemu={"source": refusal.qemu, "target": refusal.qemu},
                                device_options=refusal.device_options, **common)
        machines = [VM(f"{side}{time.monotonic_ns()}", carrier[side], folder, setup,
                       incoming=side == "target") for side in carrier]
        try:
            for machine in machines:
                machine.start()
            said = attempt(refusal, *machines)
        except Failure as failure:
            said = [str(failure).split(": ", 1)[-1]]
        finally:
            for machine in machines:
                machine.quit()
    for text in said:
        if refusal.words in text:
            return STAMP.sub("", text).strip(), None
    return "; ".join(said), f"it should say {refusal.words!r}"
