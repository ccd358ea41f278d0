# SPDX-License-Identifier: GPL-2.0-only
"""What a person reads. No line is wider than a terminal of 80 columns, but for tables."""
from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .migration import BANDWIDTH

if TYPE_CHECKING:
    from .evidence import Evidence
    from .migration import Setup

WIDTH = 79
# A slow start is a multiple of the one, and no longer than the other.
STEP_MS, LONGEST_MS = 500, 30_000


def paragraph(text: str, indent: str = "") -> str:
    """Text of several sentences, in lines."""
    return textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=indent,
                         subsequent_indent=indent)


class Sparse:
    """Which lines of vfio-migrate's progress are shown: the first of a phase, and some more."""
    EVERY_S = 5

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.phase = ""
        self.at = 0.0

    def shows(self, text: str) -> bool:
        # There may be a time in front of it
        phase, now = re.sub(r"^[\d:]+ ", "", text).split(",")[0], self.clock()
        if phase == self.phase and now - self.at < self.EVERY_S:
            return False
        self.phase, self.at = phase, now
        return True


def mib(count: float) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def milliseconds(value: Any) -> str:
    return "?" if value is None else f"{value:.0f} ms"


def seconds(ms: float) -> str:
    return f"{ms / 1000:g} s"


def title(setup: Setup) -> str:
    kind = "pre-copy" if setup.precopy else "stop-copy only"
    delay = f", target needs {seconds(setup.delay_ms)} more to start" if setup.delay_ms else ""
    return kind + delay


def timeline(evidence: Evidence) -> Iterator[str]:
    start = evidence.run.started
    for moment in evidence.moments():
        at = (moment.at - start) / 1e6
        yield f"{at:9.1f} ms  {moment.where:<6}  {moment.what:<24}  ({moment.seen_by})"


def faults(counted: dict[str, int], large: str, *small: Any) -> str:
    if not counted:
        return ""
    return f"{counted[large]}, {sum(counted[name] for name in small)}"


def facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """What goes into the table, one (name, value) after the other."""
    run, size = evidence.run, evidence.sizes()
    result = run.result
    yield "target's extra startup", f"{run.setup.delay_ms} ms"
    yield "QEMU's downtime limit", milliseconds(run.setup.downtime_limit_ms)
    yield "downtime QEMU expects", milliseconds(run.expected_ms)
    yield "downtime QEMU reports", milliseconds(run.info["downtime"])
    yield "VM ran nowhere", milliseconds(evidence.pause_ms())
    yield "guest's longest gap", milliseconds(int(result["longest_gap_us"]) / 1000)
    yield "the same from outside", milliseconds(run.silence / 1e6)
    yield "total time", milliseconds(run.info["total-time"])
    if run.setup.precopy:
        device, ram = evidence.moved_meanwhile()
        yield "startup", milliseconds(evidence.startup_ns() / 1e6)
        yield "initial data took", milliseconds(evidence.first_pass_ns() / 1e6)
        yield "stream stood still", milliseconds(evidence.stall_ns() / 1e6)
        yield "device data meanwhile", mib(device)
        yield "VM's RAM meanwhile", mib(ram)
    else:
        for name in ("startup", "initial data took", "stream stood still",
                     "device data meanwhile", "VM's RAM meanwhile"):
            yield name, ""
    yield "device: initial bytes", mib(size["initial"])
    yield "device: dirty", mib(size["precopy"])
    yield "device: in stop-copy", mib(size["stopcopy"])
    yield "VM's RAM", mib(run.info["ram"]["transferred"] - evidence.sent())
    yield "page writes meanwhile", str(run.during)
    yield "faults of 2 MiB, 4 KiB", faults(run.at_rest, "huge_faults", "read_faults",
                                           "write_faults", "mkwrite_faults")
    yield "the same meanwhile", faults(run.tracked, "huge_faults", "read_faults",
                                       "write_faults", "mkwrite_faults")
    yield "pages right at the end", str(result["good"])
    yield "pages in use", str(result["pages"])


def headings(names: Iterable[str]) -> Iterator[list[str]]:
    """A name is told in several lines, one for each of its parts."""
    parts = [name.split(", ") for name in names]
    for line in range(max(map(len, parts))):
        yield [""] + [part[line] if line < len(part) else "" for part in parts]


def table(column_names: list[str], evidences: list[Evidence]) -> Iterator[str]:
    rows = [[name] for name, _ in facts(evidences[0])]
    for evidence in evidences:
        for row, (_, value) in zip(rows, facts(evidence)):
            row.append(value)
    rows = [*headings(column_names), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        yield "  ".join(cells).rstrip()


def meanwhile(evidence: Evidence) -> str:
    """One sentence on what went on during the startup."""
    device, ram = evidence.moved_meanwhile()
    return (f"startup {milliseconds(evidence.startup_ns() / 1e6)}, initial data "
            f"{milliseconds(evidence.first_pass_ns() / 1e6)}, stream stood still "
            f"{milliseconds(evidence.stall_ns() / 1e6)}; meanwhile QEMU sent {device} bytes "
            f"of the device and {ram} of the VM's RAM")


def gain(precopy: Evidence, stopcopy: Evidence) -> str:
    """One sentence on what pre-copy buys."""
    return (f"the VM stood still for {milliseconds(precopy.pause_ms())} with pre-copy and "
            f"for {milliseconds(stopcopy.pause_ms())} without")


def waiting(evidence: Evidence) -> str:
    """One sentence on the wait for the target, if there was one."""
    stall = evidence.stall_ns() / 1e6
    if stall < 1:
        return "The device's data took as long as that, so that the stream never had to wait."
    return (f"The stream waited for the target for {milliseconds(stall)}, at the end of the "
            "initial data.")


def slow_start_ms(initial_ms: float, least_ms: float) -> int:
    """
    A startup that outlasts the initial data by as much again, so that the stream has to
    wait for it. How long the data takes depends on the host, and is measured before.
    """
    wanted = max(least_ms, 2 * initial_ms)
    return min(int(-(-wanted // STEP_MS) * STEP_MS), LONGEST_MS)


def assumptions(setup: Setup) -> str:
    return (f"QEMU was told that {mib(BANDWIDTH)}/s flow while the VM is stopped. It takes "
            "a downtime for bytes divided by that, and knows of no other cost.")


__all__ = ["Sparse", "assumptions", "gain", "meanwhile", "mib", "milliseconds", "paragraph", "seconds",
           "slow_start_ms", "table", "timeline", "title",
           "waiting"]
