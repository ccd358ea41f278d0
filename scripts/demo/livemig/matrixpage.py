# SPDX-License-Identifier: GPL-2.0-only
"""The matrix as lines of text, and as a page of the documentation."""
from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import matrix, ways
from .book import refused, seen
from .book import results as results_of

if TYPE_CHECKING:
    from .book import Book
    from .matrix import Result, Trip

HEAD = """\
.. SPDX-License-Identifier: GPL-2.0-only

=====================
QEMU migration matrix
=====================

``make matrix MATRIX=--rst`` writes this page. These results are of {date}, with QEMU {release} of
Debian 13 and {newer} of its backports, on Linux {kernel}, in an emulated machine.

Each value is from one migration of a running VM under KVM, {count} migrations in all. The guest
writes to the device all the time. After the migration it compares every byte with the value that
it wrote. The tracepoints of the driver and of QEMU must show all steps in the correct order: the
states of both sides; the preface before the startup, the startup before the barrier, the barrier
before the acknowledgment, and the acknowledgment before the VM stops; and with two devices, both in
``PRE_COPY_P2P`` before the first enters ``STOP_COPY``, and both in ``RUNNING_P2P`` before the first
enters ``RUNNING``. QEMU, both drivers and the trace must agree on the number of bytes. The page is
written only if all migrations fulfil these conditions.

{tries}.. contents::
   :local:
   :depth: 1
"""

STILL = """
Downtime
========

In ms, from the last action of the guest at the source to its first at the target. The machine is
emulated, with two processors for everything, and may have had other work: these values show what
works, not how fast it is. :doc:`benchmarks` has the driver's own share of the downtime. Each VM
migrates back and forth between the two versions of QEMU. The machine type is ``{machine}``, except
in the last column.

IOMMU
  ``type1``: group and container; ``iommufd``: the device's cdev.
lines
  Connections of the migration. ``1``: one socket. ``multifd``: RAM uses several sockets, and so does
  the last part of the device's state, which threads of QEMU transfer.
ack
  Whether QEMU waits for the acknowledgment that the target has started (``switchover-ack``).

"""

MOVED = """
Amount of device data
=====================

In KiB: the amount sent in pre-copy after the initial data, then the amount sent while the VM was
stopped. The initial data, at most {initial} KiB, is the memory that the guest has in use
({in_use} MiB) with its headers, and was sent before in each migration. The guest writes as fast as it
can, and written memory is sent again.

"""

OTHERS = """
Other machine types
===================

``multifd, RAM``: with this machine type, and with compression, QEMU sends the device's state by the
main connection instead of multifd, without a message. Without pre-copy all device data is sent while
the VM is stopped. The VM with ``x-no-mmap`` runs under TCG: on emulated SVM, KVM fails when an access to
a device and an interrupt coincide (``KVM internal error. Suberror: 3``), whatever the device. Amounts
are in KiB.

"""

FAILED = """
``release`` is the QEMU version of Debian 13, and ``newer`` that of its backports.

"""

NUMBERS = """
All results
===========

:download:`matrix.csv` has one line for each migration, with the downtime that QEMU reports
(``qemu_downtime_ms``), the total time (``total_ms``), and all amounts of data, including RAM.
"""


def kib(count: int) -> str:
    return f"{count >> 10}"


def numbers(result: Result) -> str:
    facts = result.facts
    if not facts:
        return f"{result.seconds:.1f} s"
    return (f"stood still {facts['pause_ms']:.0f} ms (QEMU says {facts['qemu_downtime_ms']}), "
            f"{facts['total_ms']} ms in all; device, KiB: {kib(facts['initial'])} initial, "
            f"{kib(facts['precopy'])} pre-copy, {kib(facts['stopcopy'])} stop-copy; "
            f"{kib(facts['multifd'])} by multifd; {result.seconds:.1f} s")


def simple_table(head: list[str], rows: list[list[str]]) -> str:
    """RST's simple table; the last column may have several lines."""
    rows = [head] + rows
    widths = [max(len(line) for row in rows for line in row[i].split("\n"))
              for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def lines(row: list[str]) -> Iterator[str]:
        cells = [cell.split("\n") for cell in row]
        for at in range(max(map(len, cells))):
            # An empty first cell continues the line before.
            yield "  ".join((cell[at] if at < len(cell) else "").ljust(width)
                            for cell, width in zip(cells, widths)).rstrip()

    body = [line for row in rows[1:] for line in lines(row)]
    return "\n".join([rule, *lines(rows[0]), rule, *body, rule])


def grid_table(head: list[str], rows: list[list[str]]) -> str:
    """RST's grid table: all columns may have several lines."""
    table = [[cell.split("\n") for cell in row] for row in [head] + rows]
    widths = [max(len(line) for row in table for line in row[i]) for i in range(len(head))]

    def rule(character: str) -> str:
        return "+" + "+".join(character * (width + 2) for width in widths) + "+"

    def lines(row: list[list[str]]) -> Iterator[str]:
        for at in range(max(map(len, row))):
            yield "| " + " | ".join((cell[at] if at < len(cell) else "").ljust(width)
                                    for cell, width in zip(row, widths)) + " |"

    found = [rule("-"), *lines(table[0]), rule("=")]
    for row in table[1:]:
        found += [*lines(row), rule("-")]
    return "\n".join(found)


def lines_used(result: Result) -> str:
    if not result.cell.multifd:
        return "1"
    by_multifd = result.trip.by_multifd(result.cell)
    compression = result.cell.compression
    return "multifd" + ("" if by_multifd else ", RAM") + \
        ("" if compression == "none" else f", {compression}")


def heading(text: str, below: str = "=") -> str:
    return f"\n{text}\n{below * len(text)}\n"


def short(versions: dict[str, str]) -> dict[str, str]:
    return {name: ".".join(version.split(".")[:2]) for name, version in versions.items()}


def still(result: Result) -> str:
    return f"{result.facts['pause_ms']:.0f}"


def moved(result: Result) -> str:
    return f"{kib(result.facts['precopy'])} + {kib(result.facts['stopcopy'])}"


# What all VMs do, in one table

COMMON = ["Devices", "IOMMU", "lines", "ack"]


def is_common(trip: Trip) -> bool:
    return trip in matrix.COMMON


def way(result: Result) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The row of a common VM's migration, and its column."""
    trip, cell = result.trip, result.cell
    row = ("two" if trip.two else "one", "iommufd" if trip.iommufd else "type1",
           lines_used(result), "yes" if cell.ack else "no")
    return row, (cell.source, cell.target, trip.machine)


def column_title(column: tuple[str, ...], names: dict[str, str]) -> str:
    source, target, machine = column
    ways = f"{names[source]} to {names[target]}"
    return ways if machine == matrix.COMMON_MACHINE else f"{ways}, {machine}"


def common_table(results: Iterable[Result], versions: dict[str, str], show: Callable[[Result], str]) -> str:
    rows: dict[tuple[str, ...], dict] = {}
    columns: list[tuple[str, ...]] = []
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

def others_table(results: Iterable[Result], versions: dict[str, str]) -> str:
    names, rows = short(versions), []
    for result in results:
        trip, cell, facts = result.trip, result.cell, result.facts
        if not is_common(trip):
            what = [trip.machine] + ["two devices"] * trip.two + trip.remarks
            rows.append([", ".join(what), f"{names[cell.source]} to {names[cell.target]}",
                         lines_used(result), still(result),
                         *(kib(facts[phase]) for phase in ("initial", "precopy", "stopcopy"))])
    return simple_table(["Machine", "QEMU", "lines", "downtime, ms", "initial", "pre-copy",
                         "stop-copy"], rows)


REFUSED = """

Configurations that QEMU refuses
================================

These configurations were tried; the table has QEMU's messages. The driver cannot change these
results. ``x-migration-multifd-transfer`` with its default value ``auto`` uses the main connection
instead.

"""


def refusals(found: Iterable[Any], versions: dict[str, str]) -> str:
    rows = []
    for refusal, said in found:
        version = versions["release" if refusal.qemu is matrix.RELEASE else "newer"]
        rows.append([refusal.what, version, "\n".join(textwrap.wrap(said, 60))])
    return simple_table(["Configuration", "QEMU", "Message"], rows)


WAYS = """
Other operations of QEMU
========================

QEMU {newer} with the machine type ``q35`` did these to a running VM. "All contents are kept" means
that the guest has compared every byte of the device afterwards, and that the VM runs in exactly one
QEMU. Where a migration fails, is refused or loses contents, that is QEMU's decision; :doc:`vmm` says
what to do instead.

"""


def ways_table(book: Book) -> str:
    """A row for each way, or one for each kind of IOMMU if they differ."""
    rows = []
    for way in ways.ALL:
        said = {"iommufd" if iommufd else "type1": seen(book, way, iommufd) for iommufd in (False, True)}
        same = said["type1"] == said["iommufd"]
        kinds = {"type1, iommufd": said["type1"]} if same else said
        for kind, text in kinds.items():
            rows.append([way.__doc__.strip(), kind, "\n".join(textwrap.wrap(text, 60))])
    return grid_table(["What", "IOMMU", "Result"],
                      [["\n".join(textwrap.wrap(what, 30, break_on_hyphens=False)), *rest]
                       for what, *rest in rows])


# All numbers

FACTS = ("pause_ms", "qemu_downtime_ms", "total_ms", "initial", "precopy", "stopcopy", "ram",
         "multifd")


def numbers_file(results: Iterable[Result], versions: dict[str, str]) -> str:
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


def tries(book: Book) -> str:
    """How it came about."""
    said = [f"The migrations were made in {len(book.runs())} runs."] * (len(book.runs()) > 1)
    failed = len(book.failures())
    if failed:
        said.append(f"Failed attempts were repeated ({failed} {'times' if failed > 1 else 'time'}), "
                    "see below.")
    return " ".join(said) + "\n\n" if said else ""


def failures(book: Book) -> str:
    """What of all this was not right at first."""
    rows = [["\n".join(textwrap.wrap(name, 50)), "\n".join(textwrap.wrap("; ".join(wrong), 50))]
            for name, wrong in book.failures()]
    return heading("Repeated attempts") + FAILED + grid_table(
        ["Configuration", "Failure"], rows) + "\n" if rows else ""


def files(book: Book, kernel: str) -> Iterator[tuple[str, str]]:
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
        refusals(refused(book), versions), "\n", WAYS.format(**versions), ways_table(book), "\n",
        failures(book), NUMBERS])
    yield "matrix.csv", numbers_file(results, versions)
