# SPDX-License-Identifier: GPL-2.0-only
"""
What else QEMU can do with a VM that has our device, and what becomes of the device.

A way is a function with one line of documentation, which names it.  It takes a Scene with
a running VM, leaves scene.source as the QEMU that has the guest, and returns a sentence
about what was seen, as a fault does (faults.py).  One that ends with scene.source None has
judged the rest itself: nobody has the guest then.
"""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING, Any

from qemu.qmp import QMPError

from . import faults, migration
from .faults import must_load, plain_capabilities, plain_parameters, say_so
from .migration import device_attribute
from .scene import small
from .vm import VM, Deadline, Failure, GuestLost

if TYPE_CHECKING:
    from .scene import Scene

FD = "line"                     # what the QEMU call the file that they are given
KEPT = "all contents are kept"
MEMORY_MIB = 16                 # of the device
IN_USE_MIB = 8
COMPLETION_TIMEOUT = 1 << 14    # a bit of the uncorrectable errors' register; not fatal
DEVICES = "/sys/bus/pci/devices"
SLOTS = "/sys/bus/pci/slots"


# Lines that are not a socket of QEMU's own

def hand_over(machine: VM, fd: int) -> None:
    machine.qmp.send_fd_scm(fd)
    machine.cmd("getfd", fdname=FD)
    os.close(fd)


def listen_by_fd(target: VM) -> None:
    target.cmd("migrate-incoming", **{"uri": "fd:" + FD, "exit-on-error": False})


def fd_of_a_pipe(scene: Scene) -> str:
    """``fd:`` with a pipe"""
    source, target = scene.source, scene.target()
    here, there = os.pipe()
    hand_over(source, there)
    hand_over(target, here)
    plain_capabilities(source)
    plain_capabilities(target)
    plain_parameters(scene)
    listen_by_fd(target)
    source.cmd("migrate", uri="fd:" + FD)
    scene.must_end("completed")
    must_load(scene, target)
    return f"{KEPT}; nobody can acknowledge by a pipe"


def fd_of_a_socket(scene: Scene) -> str:
    """``fd:`` with a pair of sockets"""
    source, target = scene.source, scene.target()
    for machine, end in zip((source, target), socket.socketpair()):
        hand_over(machine, end.detach())
        migration.prepare(machine, scene.setup)
    before = scene.acks()
    listen_by_fd(target)
    source.cmd("migrate", uri="fd:" + FD)
    scene.must_end("completed")
    if scene.acks() == before:
        raise Failure("it did not wait for the target's acknowledgment")
    scene.moved(target)
    return f"{KEPT}, and the target acknowledged"


def exec_of_a_program(scene: Scene) -> str:
    """``exec:`` with a program that writes a file, and with one that reads it"""
    faults.by_file(scene, "exec:cat >{}".format, "exec:cat {}".format)
    return KEPT


def plain_file(scene: Scene) -> str:
    """``file:``"""
    faults.through_a_file(scene)
    return KEPT


def mapped_ram(scene: Scene) -> str:
    """``file:`` with ``mapped-ram``"""
    faults.by_file(scene, "file:{}".format, "file:{}".format, "mapped-ram")
    return KEPT


# CPR: another QEMU on this host goes on with the VM and with the device

def unix_channel(kind: str, path: str) -> dict[str, Any]:
    return {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}


class Successor(VM):
    """A QEMU that gets the VM by cpr-transfer; its monitor answers only after that began."""

    def channels(self) -> list[dict[str, Any]]:
        return [unix_channel(kind, self.path(kind)) for kind in ("main", "cpr")]

    def incoming_arguments(self) -> list[str]:
        return [word for channel in self.channels() for word in ("-incoming", json.dumps(channel))]


def transfer(scene: Scene) -> Successor:
    """The source is told to; its successor's monitor answers."""
    after = scene.machine(scene.source.bdf, incoming=True, kind=Successor)
    after.launch()
    deadline = Deadline(60, "the successor waiting for the VM")
    while not os.path.exists(after.path("cpr")):
        after.must_live()
        deadline.nap()
    plain_capabilities(scene.source)
    plain_parameters(scene, mode="cpr-transfer")
    scene.source.cmd("migrate", channels=after.channels())
    after.reach()
    scene.guest.attach(after)
    return after


def cpr_transfer(scene: Scene) -> str:
    """``cpr-transfer``, twice, with ``enable-migration=off``"""
    for _ in range(2):
        after, before = transfer(scene), scene.source
        scene.must_end("completed")
        scene.moved(after)
        scene.end(before)
    return KEPT


def contents(scene: Scene, machine: VM) -> str:
    """How much of the device's memory is what the guest at this QEMU has stored."""
    said = migration.ask_guest(scene.guest, machine, "check", "RESULT")
    return f"{said['good']} of {said['pages']} pages are right"


def runs(machine: VM) -> bool:
    """A QEMU that ends does not answer."""
    try:
        return bool(machine.cmd("query-status")["status"] == "running")
    except Failure:
        return False


def cpr_transfer_on(scene: Scene) -> str:
    """``cpr-transfer`` with ``enable-migration=on``"""
    machines = {"old": scene.source, "new": transfer(scene)}
    ended = scene.wait_ended()
    said = f"the migration {ended}" + (f": {say_so(scene.why())}" if ended == "failed" else "")
    scene.guest.forget_half_a_line()
    running = [which for which, machine in machines.items() if runs(machine)]
    for which in running:
        said += f"; the {which} QEMU goes on, and {contents(scene, machines[which])}"
    scene.close()
    return said if running else said + "; none of them goes on"


def until_gone(machine: VM) -> None:
    """Until its monitor does not answer any more."""
    deadline = Deadline(60, "the exec")
    try:
        while True:
            machine.qmp.cmd("query-status")
            deadline.nap(0.1)
    except (OSError, EOFError, QMPError, asyncio.TimeoutError):
        pass
    with contextlib.suppress(OSError, EOFError, QMPError):
        machine.qmp.close()


def exec_itself(scene: Scene) -> None:
    """The source becomes another program, with another monitor and other lines."""
    machine, path = scene.source, scene.source.path("cpr")
    command = [word for word in machine.arguments() if word not in ("-incoming", "defer")]
    plain_capabilities(machine)
    plain_parameters(scene, **{"mode": "cpr-exec",
                               "cpr-exec-command": command + ["-incoming", "file:" + path]})
    machine.cmd("migrate", uri="file:" + path)
    until_gone(machine)
    machine.reach()
    scene.guest.attach(machine)
    scene.wait(lambda: runs(machine), "the VM going on after the exec")
    machine.events = []


def cpr_exec(scene: Scene) -> str:
    """``cpr-exec``, with ``enable-migration=off``"""
    exec_itself(scene)
    return KEPT


def cpr_exec_on(scene: Scene) -> str:
    """``cpr-exec`` with ``enable-migration=on``, and then a migration"""
    exec_itself(scene)
    wrong = scene.one_side() or scene.all_right()
    if wrong:
        raise Failure(f"after the exec: {wrong}")
    scene.mark()
    target = scene.target()
    scene.begin(target)
    ended = scene.end_of(target)
    return f"{KEPT}; the migration {ended}" + (f": {say_so(scene.why())}" if ended == "failed" else "")


# Errors of the bound function

def inject(bdf: str, status: int) -> None:
    """An uncorrectable error, by the kernel's aer_inject."""
    domain, bus, rest = bdf.split(":")
    device, function = rest.split(".")
    error = struct.pack("BBBxIIIIIII", int(bus, 16), int(device, 16), int(function), status, 0,
                        0, 0, 0, 0, int(domain, 16))
    with open("/dev/aer_inject", "wb", buffering=0) as file:
        file.write(error)


def refused(machine: VM, name: str) -> str:
    try:
        machine.cmd(name)
    except Failure as failure:
        return say_so(str(failure).split(": ", 1)[1])
    raise Failure(f"QEMU ({machine.name}) did not refuse {name}")


def error_of_the_function(scene: Scene) -> str:
    """an uncorrectable PCI Express error of the bound function"""
    machine = scene.source
    inject(machine.bdf, COMPLETION_TIMEOUT)
    scene.wait(lambda: not runs(machine), "the VM stopping")
    said = f"the VM is in {machine.cmd('query-status')['status']}; cont is refused: {refused(machine, 'cont')}"
    start = len(scene.guest.lines)
    machine.may_restart = True
    machine.cmd("system_reset")
    machine.cmd("cont")
    scene.guest.forget_half_a_line()
    scene.wait(lambda: scene.guest.find("READY", start) is not None, "the guest booting again", 90)
    return said + "; after system_reset the VM boots"


# The slot of the bound function

def slot_of(bdf: str) -> str:
    """The number of the slot that it is in."""
    for number in os.listdir(SLOTS):
        with open(f"{SLOTS}/{number}/address") as file:
            if file.read().strip() == bdf.rpartition(".")[0]:
                return number
    raise Failure(f"{bdf} is in no slot")


def switch_off(scene: Scene) -> subprocess.Popen[bytes]:
    """The slot waits until the function is not in use any more; no signal ends that."""
    bdf = scene.source.bdf
    scene.lost.add(bdf)
    return subprocess.Popen(["sh", "-c", f"echo 0 >{SLOTS}/{slot_of(bdf)}/power"])


def must_be_off(off: subprocess.Popen[bytes], bdf: str) -> None:
    deadline = Deadline(60, "switching off the slot")
    while off.poll() is None:
        deadline.nap()
    if off.returncode or os.path.exists(f"{DEVICES}/{bdf}"):
        raise Failure("the function is still there")


def slot_switched_off(scene: Scene) -> str:
    """the slot of the bound function switched off, and then a migration"""
    machine = scene.source
    off = switch_off(scene)
    try:
        scene.wait(lambda: not os.path.exists(f"{DEVICES}/{machine.bdf}/precopy"),
                   "the driver being asked to let the function go")
        wrong = scene.one_side() or scene.all_right()
        if wrong or off.poll() is not None:
            raise Failure(wrong or "the slot did not wait for the VM")
        scene.mark()
        target = scene.target()
        machine.cmd("migrate", uri=migration.connect(machine, target))
        scene.must_end("completed")
        scene.moved(target)
    finally:
        scene.end(machine)          # that is what the slot waits for
    must_be_off(off, machine.bdf)
    return f"the VM goes on with the device, and migrates; {KEPT}; then the slot is off"


def slot_switched_off_of_a_port(scene: Scene) -> str:
    """the same, the device on a hot-plug port, and no migration"""
    machine = scene.source
    migration.ask_guest(scene.guest, machine, "leave", "LEFT")
    start = len(scene.guest.lines)
    off = switch_off(scene)
    try:
        scene.wait(lambda: scene.guest.find("GONE", start) is not None, "the guest losing its device")
        must_be_off(off, machine.bdf)
        if not runs(machine):
            raise Failure("the VM does not run any more")
    finally:
        scene.close()
    return "QEMU asks the guest to release the device; the VM goes on without it"


# The device comes and goes

def both_refused(scene: Scene) -> set[str]:
    """What QEMU says to device_add and device_del."""
    said = {scene.source.monitor("device_add pci-testdev,bus=port0").replace("Error: ", "").strip()}
    try:
        scene.source.cmd("device_del", id="dev0")
    except Failure as failure:
        said.add(str(failure).split(": ", 1)[1])
    else:
        raise Failure("device_del was not refused")
    if "" in said:
        raise Failure("device_add was not refused")
    return said


def plugging_refused(scene: Scene) -> str:
    """``device_add`` and ``device_del`` during a migration"""
    said = set()
    for begin, wait in ((scene.begin_slowly, scene.wait_in_use),
                        (lambda target: scene.begin(target, downtime_limit=0), scene.wait_acked),
                        (lambda target: faults.hold_before_switchover(scene, target), lambda: None)):
        target = scene.target()
        begin(target)
        wait()
        said |= both_refused(scene)
        faults.cancel(scene)
        scene.end(target)
    return ("refused in pre-copy, after the acknowledgment, and at the switchover: "
            + "; ".join(sorted(map(say_so, said))))


class Plugged(VM):
    """A QEMU whose device comes later, by device_add."""

    def device_arguments(self) -> list[str]:
        return super().device_arguments()[:-2]

    def plug(self) -> None:
        said = self.monitor("device_add " + super().device_arguments()[-1])
        if "Error:" in said:
            raise Failure(f"QEMU ({self.name}) refused device_add: {say_so(said)}")


def plugged_at_the_target(scene: Scene) -> str:
    """``device_add`` at the target before ``migrate-incoming``"""
    target = scene.target(Plugged)
    target.plug()
    scene.begin(target)
    scene.must_end("completed")
    scene.moved(target)
    return KEPT


class Bare(VM):
    """A QEMU whose VM has no such device, or has lost it."""

    def device_arguments(self) -> list[str]:
        return []


def completed_without_data(source: VM, target: VM) -> str:
    """A migration of a VM that stands still; returns how it ended."""
    migration.connect(source, target)
    plain_capabilities(source)
    plain_capabilities(target)
    source.cmd("migrate", uri=f"unix:{target.path('stream')}")
    deadline = Deadline(60, "the end of the migration")
    while (ended := source.cmd("query-migrate").get("status")) not in ("completed", "failed"):
        deadline.nap()
    return ended


def removed_before(scene: Scene) -> str:
    """``device_del`` at the source before ``migrate``; the target has the device"""
    bdf, other = scene.source.bdf, scene.other_device()
    scene.close()
    source = scene.machine(bdf, incoming=False, kind=Bare)
    target = scene.machine(other, incoming=True)
    source.start()
    source.cmd("stop")
    target.start()
    ended = completed_without_data(source, target)
    state = device_attribute(target.bdf, "migration_state")
    scene.end_others()
    return f"QEMU says {ended}, and the device, in {state}, has the contents of a new one"


# Table order
ALL = (plain_file, mapped_ram, exec_of_a_program, fd_of_a_pipe, fd_of_a_socket,
       cpr_transfer, cpr_transfer_on, cpr_exec, cpr_exec_on, error_of_the_function,
       slot_switched_off, slot_switched_off_of_a_port, plugged_at_the_target, plugging_refused, removed_before)
# Those after which the source's device is not there any more
LOSES_SOURCE = (slot_switched_off, slot_switched_off_of_a_port)
# What a VM needs to be different
SETUP: dict[Any, dict[str, Any]] = {
    cpr_transfer: {"shared_ram": True, "migratable": "off"},
    cpr_transfer_on: {"shared_ram": True},
    cpr_exec: {"shared_ram": True, "migratable": "off"},
    cpr_exec_on: {"shared_ram": True},
    slot_switched_off_of_a_port: {"on_a_port": True},
    plugged_at_the_target: {"on_a_port": True},
    plugging_refused: {"on_a_port": True},
}
SHORT = ((cpr_transfer, True), (fd_of_a_socket, False))


def one(scene: Scene, way: Any, iommufd: bool, spare: list[str]) -> tuple[str, str]:
    """
    What was seen, and what is wrong or None.  A way that loses its source takes that from
    the spare devices, each time that it is tried.
    """
    if way in LOSES_SOURCE:
        scene.setup = dataclasses.replace(scene.setup,
                                          carrier={**scene.setup.carrier, "source": spare.pop()})
    small(scene.setup.carrier.values(), MEMORY_MIB)
    try:
        scene.boot(iommufd=iommufd, **SETUP.get(way, {}))
        scene.mark()
        said = way(scene)
        return said, scene.verdict()
    except GuestLost:
        raise
    except Failure as failure:
        for machine in scene.machines:
            machine.must_not_be_lost(failure)
        return "", str(failure)
    finally:
        scene.close()
