# SPDX-License-Identifier: GPL-2.0-only
"""
A VM in which Linux's own driver pci_endpoint_test uses our device, of the model
"engine", and the kernel's own kselftest of that driver runs again and again while the
VM moves.
"""
from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from . import migration, trace
from .migration import Run, Setup
from .vm import VM, Deadline, Failure, Guest, GuestLost, despite_loss

VECTORS = 8
# Tests of the kernel that a device with BAR 0, BAR 2 and MSI-X passes; it skips others.
PASSES = 9
MEMORY_MIB = 4
# The one that goes on when the target begins to run, and one that begins there
RUNS_AFTER = 2
COUNTERS = ("dma_steps", "irqs_raised", "irqs_dropped", "dma_unlogged_pages")


@contextlib.contextmanager
def engines(bdfs: list[str]) -> Iterator[None]:
    """Devices of the other model, which are small; afterwards they are as before."""
    wanted = {"model": "engine", "memory_size": str(MEMORY_MIB << 20)}
    before = [(bdf, name, migration.device_attribute(bdf, name))
              for bdf in bdfs for name in wanted]
    try:
        for bdf, name, _ in before:
            trace.write(attribute(bdf, name), wanted[name])
        yield
    finally:
        for bdf, name, value in before:
            trace.write(attribute(bdf, name), value)


def attribute(bdf: str, name: str) -> str:
    return f"/sys/bus/pci/devices/{bdf}/precopy/{name}"


def counters(setup: Setup) -> dict[str, dict[str, int]]:
    return {side: {name: migration.statistic(bdf, name) for name in COUNTERS}
            for side, bdf in setup.carrier.items()}


def runs_of(guest: Guest) -> list[dict[str, str]]:
    """What the guest said of each run of the tests that has ended."""
    with guest.lock:
        return [dict(word.split("=", 1) for word in text.split(" ")[1:])
                for _, text in guest.lines if text.startswith("RUN ")]


def wait_runs(guest: Guest, machine: VM, number: int) -> None:
    deadline = Deadline(90, f"{number} runs of the kernel's tests in the VM")
    while len(runs_of(guest)) < number:
        guest.find("READY")             # or what the guest failed at
        machine.collect_events()
        deadline.nap(0.1)


def move(source: VM, target: VM, guest: Guest, run: Run) -> int:
    """Returns how many runs had ended when the VM began to move."""
    run.ready, run.kvm = migration.boot(source, guest)
    wait_runs(guest, source, 1)
    target.start()
    guest.attach(target)
    uri = migration.connect(source, target)
    before = len(runs_of(guest))
    source.cmd("migrate", uri=uri)
    migration.wait_migrated(source, target, run)
    run.info = source.cmd("query-migrate")
    wait_runs(guest, target, len(runs_of(guest)) + RUNS_AFTER)
    return before


def wrong_runs(runs: list[dict[str, str]], bad: list[str]) -> str:
    """What is wrong with them, or nothing."""
    for said in runs:
        if (int(said["failed"]), int(said["passed"]), int(said["vectors"])) != (0, PASSES, VECTORS):
            return f"run {said} of {len(runs)}\n" + "\n".join(bad[:10])
    return ""


def verdicts(run: Run, guest: Guest, before: int, grown: dict[str, dict[str, int]],
             states: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a property and what is wrong with it, if anything."""
    runs, bad = runs_of(guest), guest.bad_lines(0)
    yield "the VM runs under KVM", "" if run.kvm or run.setup.accel != "kvm" else "it does not"
    yield "Linux's pci_endpoint_test passes the kernel's tests before the VM moves", \
        wrong_runs(runs[:before], bad)
    yield "and while it moves, and after", wrong_runs(runs[before:], bad)
    yield "QEMU saw the device in pre-copy", "" if "pre-copy" in states else f"only {states}"
    yield "both devices did DMA and raised interrupts", \
        "" if all(side["dma_steps"] and side["irqs_raised"] for side in grown.values()) else str(grown)
    if run.setup.dma_log:
        yield "QEMU's log had each page that was written", \
            "" if not grown["source"]["dma_unlogged_pages"] else str(grown)
    yield "no interrupt was lost", \
        "" if not any(side["irqs_dropped"] for side in grown.values()) else str(grown)
    yield "the kernel had nothing to complain of", "; ".join(run.complaints[:3])


def plight(guest: Guest, setup: Setup, *machines: VM) -> Iterator[str]:
    """What may explain why the guest went no further."""
    now = time.monotonic_ns()
    with guest.lock:
        yield from (f"{(now - t) / 1e9:.1f} s ago: {text}" for t, text in guest.lines[-10:])
    yield f"the devices' counters: {counters(setup)}"
    for machine in machines:
        if machine.qmp:
            with contextlib.suppress(Failure, OSError):
                yield machine.plight()


def journey(setup: Setup, folder: str) -> list[tuple[str, str]]:
    run, guest = Run(setup, folder), Guest()
    source, target = (VM(side, setup.carrier[side], folder, setup, side == "target")
                      for side in ("source", "target"))
    complaints, start = len(migration.kernel_complaints()), counters(setup)
    try:
        before = move(source, target, guest, run)
    except GuestLost:
        raise
    except Failure as failure:
        source.must_not_be_lost(failure)
        target.must_not_be_lost(failure)
        raise Failure("\n".join([str(failure), *plight(guest, setup, source, target)])) from failure
    finally:
        source.quit()
        target.quit()
        guest.close()
    run.complaints = migration.kernel_complaints()[complaints:]
    now = counters(setup)
    grown = {side: {name: now[side][name] - start[side][name] for name in COUNTERS} for side in now}
    states = [event["data"].get("device-state") for event in source.events
              if event["event"] == "VFIO_MIGRATION"]
    return list(verdicts(run, guest, before, grown, states))


def go(common: dict[str, Any], initrd: str, folder: str) -> list[tuple[str, str]]:
    """Returns verdicts, or raises Failure."""
    setup = Setup(iommufd=common["dma_log"], **{**common, "initrd": initrd})
    os.makedirs(folder)
    migration.turn_knobs(setup)
    with engines(list(setup.carrier.values())):
        return despite_loss(lambda: journey(setup, folder), lambda text: print(f"# {text}", flush=True))
