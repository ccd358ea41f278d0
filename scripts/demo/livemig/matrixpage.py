# SPDX-License-Identifier: GPL-2.0-only
"""The matrix as lines of text, and as a page of the documentation."""
import textwrap

from . import matrix
from .book import refused
from .book import results as results_of

HEAD = """\
.. SPDX-License-Identifier: GPL-2.0-only

=============================
Migration with QEMU, all ways
=============================

This page is written by ``make matrix MATRIX=--rst``; it is of {date}, with QEMU {release}, which
Debian 13 has, and {newer}, which its backports have, on Linux {kernel}, in an emulated machine.

Each number is of a migration of a running VM under KVM, {count} in all. Its guest writes to the
device all the time, and afterwards compares every byte with what it remembers. The driver's
tracepoints and QEMU's must show all steps in their order: the states of both sides, the preface
before the startup, the startup before the barrier, the barrier before the acknowledgment, that
before the VM stops; with two devices both in ``PRE_COPY_P2P`` before the first enters
``STOP_COPY``, and both in ``RUNNING_P2P`` before the first enters ``RUNNING``. QEMU, both drivers
and the trace must count the same bytes. All numbers are of migrations for which that is true; the
page is not written before each of them is there.

{tries}

.. contents::
   :local:
   :depth: 1
"""

STILL = """
How long the VM stood still
===========================

In ms, from the last that the guest could do at the source to the first at the target. The machine
is emulated and does everything with two processors, so compare neighbours at most; the driver's
own part is in :doc:`benchmarks`. A VM goes back and forth between the two QEMU, all columns but the
last being of machine type ``{machine}``.

IOMMU
  ``type1``: the group and its container; ``iommufd``: the device's cdev.
lines
  ``1``: a plain socket. ``multifd``: RAM goes by several, and the last of the device's state too,
  by threads of QEMU's.
ack
  whether QEMU has to wait for the target's word that it has started (``switchover-ack``).

"""

MOVED = """
What of the device moved
========================

In KiB: what moved during pre-copy after the initial data, and then what moved while the VM stood
still. The initial data, at most {initial} KiB, is all that the guest has in use ({in_use} MiB) and
its headers; it went before in each of these. The guest writes as fast as it can, and what it has
written moves again.

"""

OTHERS = """
Other machines
==============

``multifd, RAM``: with this machine type, and with compression, QEMU does not send the device's
state by several lines, and says nothing; it goes by the main line. Without pre-copy nothing moves
before the VM stands still. A VM with ``x-no-mmap`` runs under TCG: where SVM is itself emulated,
KVM gives up when an access to the device and an interrupt come together (``KVM internal error.
Suberror: 3``), whatever the device. Bytes are in KiB.

"""

FAILED = """
``release`` is the QEMU of Debian 13, ``newer`` that of its backports.

"""

NUMBERS = """
All numbers
===========

:download:`matrix.csv` has a line for each migration, with what QEMU says of the downtime
(``qemu_downtime_ms``) and of the whole (``total_ms``), and with all bytes, those of RAM too.
"""


def kib(count):
    return f"{count >> 10}"


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


def grid_table(head, rows):
    """RST's grid table: all columns may have several lines."""
    rows = [[cell.split("\n") for cell in row] for row in [head] + rows]
    widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(head))]

    def rule(character):
        return "+" + "+".join(character * (width + 2) for width in widths) + "+"

    def lines(row):
        for at in range(max(map(len, row))):
            yield "| " + " | ".join((cell[at] if at < len(cell) else "").ljust(width)
                                    for cell, width in zip(row, widths)) + " |"

    found = [rule("-"), *lines(rows[0]), rule("=")]
    for row in rows[1:]:
        found += [*lines(row), rule("-")]
    return "\n".join(found)


def lines_used(result):
    if not result.cell.multifd:
        return "1"
    by_multifd = result.trip.by_multifd(result.cell)
    compression = result.cell.compression
    return "multifd" + ("" if by_multifd else ", RAM") + \
        ("" if compression == "none" else f", {compression}")


def heading(text, below="="):
    return f"\n{text}\n{below * len(text)}\n"


def short(versions):
    return {name: ".".join(version.split(".")[:2]) for name, version in versions.items()}


def still(result):
    return f"{result.facts['pause_ms']:.0f}"


def moved(result):
    return f"{kib(result.facts['precopy'])} + {kib(result.facts['stopcopy'])}"


# What all VMs do, in one table

COMMON = ["Devices", "IOMMU", "lines", "ack"]


def is_common(trip):
    return trip in matrix.COMMON


def way(result):
    """The row of a common VM's migration, and its column."""
    trip, cell = result.trip, result.cell
    row = ("two" if trip.two else "one", "iommufd" if trip.iommufd else "type1",
           lines_used(result), "yes" if cell.ack else "no")
    return row, (cell.source, cell.target, trip.machine)


def column_title(column, names):
    source, target, machine = column
    ways = f"{names[source]} to {names[target]}"
    return ways if machine == matrix.COMMON_MACHINE else f"{ways}, {machine}"


def common_table(results, versions, show):
    rows, columns = {}, []
    for result in results:
        if is_common(result.trip):
            row, column = way(result)
            rows.setdefault(row, {})[column] = show(result)
            if column not in columns:
                columns.append(column)
    head = COMMON + [column_title(column, short(versions)) for column in columns]
    return simple_table(head, [[*row, *(found.get(column, "-") for column in columns)]
                               for row, found in rows.items()])


# What only some do

def others_table(results, versions):
    names, rows = short(versions), []
    for result in results:
        trip, cell, facts = result.trip, result.cell, result.facts
        if not is_common(trip):
            what = [trip.machine] + ["two devices"] * trip.two + trip.remarks
            rows.append([", ".join(what), f"{names[cell.source]} to {names[cell.target]}",
                         lines_used(result), still(result),
                         *(kib(facts[phase]) for phase in ("initial", "precopy", "stopcopy"))])
    return simple_table(["Machine", "QEMU", "lines", "still, ms", "initial", "pre-copy",
                         "stop-copy"], rows)


REFUSED = """

What QEMU refuses
=================

Tried, with the words that QEMU had for it. None of it is for the driver to change. A plain
``x-migration-multifd-transfer``, which is ``auto``, falls back to the main line instead.

"""


def refusals(found, versions):
    rows = []
    for refusal, said in found:
        version = versions["release" if refusal.qemu is matrix.RELEASE else "newer"]
        rows.append([refusal.what, version, "\n".join(textwrap.wrap(said, 60))])
    return simple_table(["What", "QEMU", "What it says"], rows)


# All numbers

FACTS = ("pause_ms", "qemu_downtime_ms", "total_ms", "initial", "precopy", "stopcopy", "ram",
         "multifd")


def numbers_file(results, versions):
    lines = [("source", "target", "machine", "iommu", "devices", "processors", "precopy_offered",
              "mmap", "accel", "lines", "ack") + FACTS]
    for result in results:
        trip, cell = result.trip, result.cell
        lines.append((versions[cell.source], versions[cell.target], trip.machine,
                      "iommufd" if trip.iommufd else "type1", 1 + trip.two, trip.cpus,
                      "yes" if trip.precopy else "no", "no" if trip.no_mmap else "yes",
                      "tcg" if trip.tcg else "kvm", lines_used(result).replace(", ", " "),
                      "yes" if cell.ack else "no",
                      *(round(result.facts[name]) for name in FACTS)))
    return "# SPDX-License-Identifier: GPL-2.0-only\n" + \
        "".join(",".join(map(str, line)) + "\n" for line in lines)


def tries(book):
    """How it came about."""
    said = [f"They were made in {len(book.runs())} runs."] * (len(book.runs()) > 1)
    failed = len(book.failures())
    if failed:
        said.append(f"What failed was tried again ({failed} {'times' if failed > 1 else 'time'}), "
                    "see below.")
    return " ".join(said)


def failures(book):
    """What of all this was not right at first."""
    rows = [["\n".join(textwrap.wrap(name, 50)), "\n".join(textwrap.wrap("; ".join(wrong), 50))]
            for name, wrong in book.failures()]
    return heading("What was tried again") + FAILED + grid_table(
        ["What", "What was wrong at first"], rows) + "\n" if rows else ""


def files(book, kernel):
    """(name, text) of the page, and of what belongs to it."""
    versions = {"release": matrix.RELEASE.version(), "newer": matrix.NEWER.version()}
    results = list(results_of(book, matrix.ALL))
    head = HEAD.format(date=book.runs()[-1][:10], kernel=kernel, count=len(results),
                       tries=tries(book), **versions)
    initial = max(result.facts["initial"] for result in results if is_common(result.trip))
    yield "matrix.rst", "".join([
        head, STILL.format(machine=matrix.COMMON_MACHINE),
        common_table(results, versions, still), "\n",
        MOVED.format(in_use=matrix.IN_USE_MIB, initial=kib(initial)),
        common_table(results, versions, moved), "\n",
        OTHERS, others_table(results, versions), REFUSED,
        refusals(refused(book), versions), "\n", failures(book), NUMBERS])
    yield "matrix.csv", numbers_file(results, versions)
