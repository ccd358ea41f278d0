# SPDX-License-Identifier: GPL-2.0-only
"""The matrix as lines of text, and as a page of the documentation."""
import datetime
import textwrap

from . import matrix

HEAD = """\
.. SPDX-License-Identifier: GPL-2.0-only

=============================
Migration with QEMU, all ways
=============================

This page is written by ``make matrix MATRIX=--rst``; it is of {date}, with QEMU {release}, which
Debian 13 has, and {newer}, which its backports have, on Linux {kernel}, in an emulated machine.

Each line is a migration of a running VM under KVM, in the order in which they were made; each
table is one VM or more. Its guest writes to the device all the time, and afterwards compares every
byte with what it remembers. The driver's tracepoints and QEMU's must show all steps in their
order: the states of both sides, the preface before the startup, the startup before the barrier,
the barrier before the acknowledgement, that before the VM stops; with two devices both in
``PRE_COPY_P2P`` before the first enters ``STOP_COPY``, and both in ``RUNNING_P2P`` before the
first enters ``RUNNING``. QEMU, both drivers and the trace must count the same bytes. All lines are
of migrations for which that is true; the page is not written otherwise.

.. contents::
   :local:
   :depth: 1

What the columns mean
=====================

QEMU
  of the source and of the target. A VM goes back and forth, so a target is the next line's source.
IOMMU
  ``type1``: the group and its container; ``iommufd``: the device's cdev.
lines
  ``1``: a plain socket. ``multifd``: RAM goes by several, and the last of the device's state too,
  by threads of QEMU's. ``multifd, RAM``: QEMU does not send device state so with this machine type
  or with compression, and says nothing; it goes by the main line.
ack
  whether QEMU has to wait for the target's word that it has started (``switchover-ack``).
still
  how long the VM ran nowhere, in ms, and what QEMU says of it (``downtime``). The machine is
  emulated and busy: compare with the line above at most.
initial, pre-copy, stop-copy
  bytes of the device's state in each phase, in KiB. The guest has {in_use} MiB in use.
RAM
  the rest of what QEMU sent, in KiB.

A VM with ``x-no-mmap`` runs under TCG: where SVM is itself emulated, KVM gives up when an access to
the device and an interrupt come together (``KVM internal error. Suberror: 3``), whatever the device.
"""


def kib(count):
    return f"{count >> 10}"


def trip_title(trip):
    words = [trip.machine, "iommufd" if trip.iommufd else "type1",
             "two devices" if trip.two else "one device"] + trip.remarks
    return ", ".join(words)


def title(result):
    cell = result.cell
    return (f"{cell.source} to {cell.target}, {cell.transport}, "
            f"{'ack' if cell.ack else 'no ack'}; {trip_title(result.trip)}")


def numbers(result):
    facts = result.facts
    if not facts:
        return f"{result.seconds:.1f} s"
    return (f"stood still {facts['pause_ms']:.0f} ms (QEMU says {facts['qemu_downtime_ms']}), "
            f"{facts['total_ms']} ms in all; device, KiB: {kib(facts['initial'])} initial, "
            f"{kib(facts['precopy'])} pre-copy, {kib(facts['stopcopy'])} stop-copy; "
            f"{kib(facts['multifd'])} by multifd; {result.seconds:.1f} s")


def simple_table(head, rows):
    """RST's simple table; the last column may have several lines."""
    rows = [head] + rows
    widths = [max(len(line) for row in rows for line in row[i].split("\n"))
              for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def lines(row):
        cells = [cell.split("\n") for cell in row]
        for at in range(max(map(len, cells))):
            # An empty first cell continues the line before.
            yield "  ".join((cell[at] if at < len(cell) else "").ljust(width)
                            for cell, width in zip(cells, widths)).rstrip()

    body = [line for row in rows[1:] for line in lines(row)]
    return "\n".join([rule, *lines(rows[0]), rule, *body, rule])


def lines_used(result):
    if not result.cell.multifd:
        return "1"
    by_multifd = result.trip.by_multifd(result.cell)
    compression = result.cell.compression
    return "multifd" + ("" if by_multifd else ", RAM") + \
        ("" if compression == "none" else f", {compression}")


HEADER = ["QEMU", "IOMMU", "lines", "ack", "still", "initial", "pre-copy", "stop-copy", "RAM"]


def row(result, versions):
    facts, cell = result.facts, result.cell
    short = {name: ".".join(version.split(".")[:2]) for name, version in versions.items()}
    return [f"{short[cell.source]} to {short[cell.target]}",
            "iommufd" if result.trip.iommufd else "type1", lines_used(result),
            "yes" if cell.ack else "no",
            f"{facts['pause_ms']:.0f} ({facts['qemu_downtime_ms']})",
            kib(facts["initial"]), kib(facts["precopy"]), kib(facts["stopcopy"]),
            kib(facts["ram"])]


def heading(text, below="="):
    return f"\n{text}\n{below * len(text)}\n"


def section(trip):
    """Under which heading a VM is found."""
    words = ["Two devices" if trip.two else "One device"]
    words += ["the newest machine type" if trip.machine == "q35" else trip.machine]
    return ", ".join(words + trip.remarks)


def tables(results, versions):
    sections = {}
    for result in results:
        sections.setdefault(section(result.trip), []).append(row(result, versions))
    for name, rows in sections.items():
        yield heading(name)
        yield "\n" + simple_table(HEADER, rows) + "\n"


REFUSED = """
What QEMU refuses
=================

Tried, with the words that QEMU had for it. None of it is for the driver to change. A plain
``x-migration-multifd-transfer``, which is ``auto``, falls back to the main line instead.

"""


def refusals(refused, versions):
    rows = []
    for refusal, said in refused:
        version = versions["release" if refusal.qemu is matrix.RELEASE else "newer"]
        rows.append([refusal.what, version, "\n".join(textwrap.wrap(said, 60))])
    return simple_table(["What", "QEMU", "What it says"], rows)


def page(results, refused, kernel):
    versions = {"release": matrix.RELEASE.version(), "newer": matrix.NEWER.version()}
    head = HEAD.format(date=datetime.date.today().isoformat(), kernel=kernel,
                       in_use=matrix.IN_USE_MIB, **versions)
    return head + "".join(tables(results, versions)) + REFUSED + refusals(refused, versions) + "\n"
