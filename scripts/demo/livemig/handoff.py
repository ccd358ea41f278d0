# SPDX-License-Identifier: GPL-2.0-only
"""
A device that vfio-migrate moves to a target that starts slowly: once waiting for
the target's acknowledgment, once without pre-copy.

What is expected of the target's memory never passes through the program that moves
it: it is stored, and read again, through the devices' own file descriptors.
"""
from __future__ import annotations

import fcntl
import functools
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import migration, report, vm
from .report import mib, milliseconds, seconds
from .vm import Failure

if TYPE_CHECKING:
    from .vm import Say

STARTUP_MS = 3000
IN_USE = 16 << 20
PAGE = 4096
# How much is stored while the target starts, in at most half of that time
STAMPS = 250
BAR = 2
GET_REGION_INFO, BIND_IOMMUFD = 0x3b6c, 0x3b76
SET_IOMMU, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = 0x3b66, 0x3b68, 0x3b6a
TYPE1V2 = 3


class Region:
    """A region of an open VFIO device."""

    def __init__(self, fd: int, index: int) -> None:
        self.fd = fd
        info = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        fcntl.ioctl(fd, GET_REGION_INFO, info)
        *_, self.size, self.offset = struct.unpack("IIIIQQ", info)

    def store(self, at: int, data: bytes) -> None:
        if os.pwrite(self.fd, data, self.offset + at) != len(data):
            raise Failure(f"a store of {len(data)} bytes at {at:#x} was short")

    def load(self) -> bytes:
        pieces, at = [], 0
        while at < self.size:
            pieces.append(os.pread(self.fd, self.size - at, self.offset + at))
            at += len(pieces[-1])
        return b"".join(pieces)


def memory_of(fd: int) -> Region:
    """A device's memory; decode is on after open."""
    return Region(fd, BAR)


def open_by_cdev(bdf: str) -> list[int]:
    """The device's fd, and those that have to stay open beside it."""
    name, = os.listdir(f"/sys/bus/pci/devices/{bdf}/vfio-dev")
    iommu = os.open("/dev/iommu", os.O_RDWR)
    fd = os.open("/dev/vfio/devices/" + name, os.O_RDWR)
    fcntl.ioctl(fd, BIND_IOMMUFD, struct.pack("IIii", 16, 0, iommu, 0))
    return [fd, iommu]


def open_by_group(bdf: str) -> list[int]:
    """The same, on a kernel without iommufd."""
    number = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{bdf}/iommu_group"))
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open("/dev/vfio/" + number, os.O_RDWR)
    fcntl.ioctl(group, GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1V2)
    fd = int(fcntl.ioctl(group, GROUP_GET_DEVICE_FD, bytearray(bdf.encode() + b"\0")))
    return [fd, group, container]


class Source:
    """A device that is open here, as it is in a VMM, with contents that we know."""

    def __init__(self, bdf: str) -> None:
        self.bdf = bdf
        self.open = (open_by_cdev if os.path.exists("/dev/iommu") else open_by_group)(bdf)
        self.fd = self.open[0]
        self.memory = memory_of(self.fd)
        self.known = bytearray(self.memory.size)
        self.store(0, random.Random(bdf).randbytes(IN_USE))

    def store(self, at: int, data: bytes) -> None:
        self.memory.store(at, data)
        self.known[at:at + len(data)] = data

    def close(self) -> None:
        for fd in self.open:
            os.close(fd)


class Stamps:
    """Stores to the source, all over its memory, while the target starts."""

    def __init__(self, source: Source, target: str, seconds: float) -> None:
        self.source, self.target, self.seconds = source, target, seconds
        self.done, self.ended = 0, threading.Event()
        self.thread = threading.Thread(target=self.work)

    def starting(self) -> bool:
        return (migration.device_attribute(self.target, "startup") == "starting" and
                migration.device_attribute(self.source.bdf, "migration_state") == "PRE_COPY")

    def work(self) -> None:
        while not self.starting():
            if self.ended.wait(0.01):
                return
        end, pages = time.monotonic() + self.seconds, self.source.memory.size // PAGE
        rnd = random.Random(self.target)
        while self.done < STAMPS and time.monotonic() < end and self.starting():
            self.source.store(rnd.randrange(pages) * PAGE, rnd.randbytes(PAGE))
            self.done += 1
            time.sleep(0.002)

    def __enter__(self) -> Stamps:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        self.thread.join()


@dataclass
class Move:
    """What was seen of one."""
    waits: bool
    startup_ms: int             # that the target was told to take
    numbers: dict = field(default_factory=dict)     # the summary of vfio-migrate
    stamps: int = 0             # pages stored while the target started
    startup_ns: int = 0         # as the driver measured it
    wrong: int = None           # bytes that differ at the target

    @property
    def downtime_ms(self) -> float:
        return self.numbers["downtime_ns"] / 1e6


# What vfio-migrate runs with the target once that runs: it copies its memory.
READ = ("import os, sys; sys.path.insert(0, sys.argv[1]); from livemig import handoff; "
        "fd = int(os.environ['VFIO_MIGRATE_FD']); "
        "open(sys.argv[2], 'wb').write(handoff.memory_of(fd).load())")


def run_tool(tool: str, source: Source, target: str, options: tuple[str, ...], copy: str,
             say: Say) -> dict[str, Any]:
    command = [tool, "move", f"fd:{source.fd}", target, "--json", *options, "--",
               sys.executable, "-B", "-c", READ, os.path.dirname(os.path.dirname(__file__)), copy]
    with subprocess.Popen(command, pass_fds=[source.fd], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(vm.limit(60 + 2 * report.LONGEST_MS / 1000), process.kill)
        timer.start()
        said = []
        for line in process.stderr:
            said.append(line.rstrip())
            say(said[-1])
        out = process.stdout.read()
        timer.cancel()
    if process.returncode:
        raise Failure(f"vfio-migrate ended with status {process.returncode}: "
                      + " / ".join(said[-4:]))
    return json.loads(out)


def differing(path: str, known: bytes) -> int:
    """How many bytes; page by page, since most are alike."""
    with open(path, "rb") as file:
        found = file.read()
    wrong = abs(len(found) - len(known))
    for at in range(0, len(known), PAGE):
        one, other = found[at:at + PAGE], known[at:at + PAGE]
        if one != other:
            wrong += sum(a != b for a, b in zip(one, other))
    return wrong


def move(tool: str, carrier: dict[str, str], folder: str, waits: bool, say: Say,
         startup_ms: int = STARTUP_MS, goal: str = "downtime") -> Move:
    """One move, by a vfio-migrate at the path tool; carrier has two PCI addresses."""
    options = ("--optimize", goal) if waits else ("--stop-copy",)
    copy = os.path.join(folder, f"copy-{waits}")
    seen = Move(waits, startup_ms)
    migration.turn_knob(carrier["target"], "startup_delay_ms", startup_ms)
    source = Source(carrier["source"])
    try:
        with Stamps(source, carrier["target"], startup_ms / 2000) as stamps:
            seen.numbers = run_tool(tool, source, carrier["target"], options, copy, say)
        seen.stamps = stamps.done
        seen.startup_ns = migration.statistic(carrier["target"], "last_startup_ns")
        seen.wrong = differing(copy, source.known)
    finally:
        source.close()
        migration.turn_knob(carrier["target"], "startup_delay_ms", 0)
    return seen


def both(tool: str, carrier: dict[str, str], folder: str,
         say: Callable[[bool, str], Any] = lambda waits, text: None,
         startup_ms: int = STARTUP_MS) -> list[Move]:
    """One that waits and one that does not."""
    for name, bdf in carrier.items():
        migration.turn_knob(bdf, "no_precopy", "N")
    return [move(tool, carrier, folder, waits, functools.partial(say, waits), startup_ms)
            for waits in (True, False)]


# What must be true

def verdicts(waiting: Move, stopped: Move) -> Iterator[tuple[str, str]]:
    """(name, what is wrong or None) for each property of the two."""
    yield ("waiting for the target's acknowledgment, a device stands still for less than "
           "its startup", none_of(
               (not waiting.numbers["acked_while_running"], "it was stopped without it"),
               (waiting.downtime_ms >= waiting.startup_ms, f"it was {waiting.downtime_ms:.0f} ms"),
               (not waiting.stamps, "nothing was stored meanwhile"),
               (waiting.numbers["bytes"]["initial"] < IN_USE, "not all was sent before")))
    yield ("without pre-copy a device stands still for all of its target's startup", none_of(
        (stopped.downtime_ms < stopped.startup_ms, f"it was {stopped.downtime_ms:.0f} ms"),
        (stopped.startup_ns < stopped.startup_ms * 10**6,
         f"the startup took {stopped.startup_ns / 1e6:.0f} ms"),
        (stopped.numbers["bytes"]["initial"], "there was pre-copy")))
    yield ("every byte at the target is what was stored at the source", none_of(
        *((seen.wrong, f"{seen.wrong} bytes differ") for seen in (waiting, stopped))))


def none_of(*cases: Any) -> str:
    return "; ".join(text for wrong, text in cases if wrong) or None


# What a person reads

def facts(seen: Move) -> Iterator[tuple[str, str]]:
    numbers, size = seen.numbers, seen.numbers["bytes"]
    yield "target's startup", milliseconds(seen.startup_ns / 1e6)
    yield "device downtime", milliseconds(seen.downtime_ms)
    yield "wait for the ack", milliseconds(numbers["ack_wait_ns"] / 1e6) if seen.waits else "none"
    yield "initial bytes", mib(size["initial"])
    yield "dirty in pre-copy", mib(size["dirty"])
    yield "while stopped", mib(size["stopped"])
    yield "total time", milliseconds(numbers["total_ns"] / 1e6)
    yield "pages stored meanwhile", str(seen.stamps)
    yield "bytes wrong at the target", str(seen.wrong)


def table(waiting: Move, stopped: Move) -> Iterator[str]:
    rows = [("", "waits for the ack", "stop-copy only")]
    rows += [(name, a, b) for (name, a), (_, b) in zip(facts(waiting), facts(stopped))]
    for name, *cells in rows:
        yield f"{name:<26}" + "".join(f"{cell:>19}" for cell in cells)


def sentence(waiting: Move, stopped: Move) -> str:
    return (f"The target needed {seconds(waiting.startup_ms)} to start. The device that waited "
            "for it worked on meanwhile, and stood still for "
            f"{milliseconds(waiting.downtime_ms)}; the other stood still all the time, for "
            f"{milliseconds(stopped.downtime_ms)}. As a whole the one move took "
            f"{milliseconds(waiting.numbers['total_ns'] / 1e6)}, the other "
            f"{milliseconds(stopped.numbers['total_ns'] / 1e6)}.")
