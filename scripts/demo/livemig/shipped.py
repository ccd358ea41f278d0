# SPDX-License-Identifier: GPL-2.0-only
"""
One migration on a kernel as a distribution ships it: no IOMMUFD, so no DMA log, and
no debugfs. QEMU has only type1 to ask, which takes all memory of the VM for dirty.
"""
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import migration, trace
from .migration import Run, Setup
from .vm import VM, Failure, Guest

if TYPE_CHECKING:
    from .vm import Say


def load_kvm() -> None:
    """It is a module here, and there is no udev that would load it."""
    for name in ("kvm-amd", "kvm-intel"):
        subprocess.run(["modprobe", "-q", name], check=False)


def move(source: VM, target: VM, guest: Guest, run: Run) -> None:
    run.ready, run.kvm = migration.boot(source, guest)
    target.start()
    guest.attach(target)
    uri = migration.connect(source, target)
    migration.ask_guest(guest, source, "mark", "MARKED")
    run.offset = trace.day_minus_mono()
    run.started = time.monotonic_ns()
    source.cmd("migrate", uri=uri)
    migration.wait_migrated(source, target, run)
    run.info = source.cmd("query-migrate")
    migration.watch_after(source, target, guest, run)


def verdicts(run: Run, states: list[str]) -> Iterator[tuple[str, bool]]:
    """Pairs of a property and whether the run has it."""
    yield "the VM ran under KVM", run.kvm
    yield "the migration completed", run.info.get("status") == "completed"
    yield "QEMU saw the device in pre-copy", "pre-copy" in states
    yield "the guest wrote before and after", run.during > 0 and run.after > 0
    yield "every byte of the device is right", \
        run.result["good"] == run.result["pages"] and not run.bad
    yield "the kernel had nothing to complain of", not run.complaints


def go(common: dict[str, Any], folder: str, say: Say) -> list[tuple[str, bool]]:
    """Returns the run and its verdicts."""
    setup = Setup(in_use_mib=16, linger=0.5, **common)
    os.makedirs(folder)
    run, guest = Run(setup, folder), Guest()
    source, target = (VM(side, setup.carrier[side], folder, setup, side == "target")
                      for side in ("source", "target"))
    complaints = len(migration.kernel_complaints())
    try:
        say("booting a VM, and migrating it")
        move(source, target, guest, run)
    finally:
        source.quit()
        target.quit()
        guest.close()
    run.complaints = migration.kernel_complaints()[complaints:]
    states = [event["data"].get("device-state") for event in source.events
              if event["event"] == "VFIO_MIGRATION"]
    found = list(verdicts(run, states))
    say(f"downtime {run.info.get('downtime')} ms, {run.info.get('vfio', {}).get('transferred')} "
        f"bytes of the device; states {' '.join(states)}; the guest says {run.result}")
    wrong = [name for name, right in found if not right]
    if wrong:
        raise Failure("it is not so that " + "; nor that ".join(wrong))
    return found
