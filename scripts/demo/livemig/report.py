# SPDX-License-Identifier: GPL-2.0-only
"""What a person reads."""
from .migration import BANDWIDTH


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


def milliseconds(value):
    return "?" if value is None else f"{value:.0f} ms"


def title(setup):
    kind = "pre-copy" if setup.precopy else "stop-copy only"
    delay = f", target needs {setup.delay_ms / 1000:g} s more to start" if setup.delay_ms else ""
    return kind + delay


def timeline(evidence):
    start = evidence.run.started
    for moment in evidence.moments():
        at = (moment.at - start) / 1e6
        yield f"{at:9.1f} ms  {moment.where:<6}  {moment.what:<24}  ({moment.seen_by})"


def faults(counted, large, *small):
    if not counted:
        return ""
    return f"{counted[large]}, {sum(counted[name] for name in small)}"


def facts(evidence):
    """What goes into the table, one (name, value) after the other."""
    run, size = evidence.run, evidence.sizes()
    result = run.result
    yield "target's startup, extra", f"{run.setup.delay_ms} ms"
    yield "QEMU's downtime limit", milliseconds(run.setup.downtime_limit_ms)
    yield "downtime QEMU expects", milliseconds(run.expected_ms)
    yield "downtime QEMU reports", milliseconds(run.info["downtime"])
    yield "VM ran nowhere", milliseconds(evidence.pause_ms())
    yield "guest's own longest gap", milliseconds(int(result["longest_gap_us"]) / 1000)
    yield "longest gap seen outside", milliseconds(run.silence / 1e6)
    yield "total time", milliseconds(run.info["total-time"])
    if run.setup.precopy:
        device, ram = evidence.moved_meanwhile()
        yield "startup", milliseconds(evidence.startup_ns() / 1e6)
        yield "initial data took", milliseconds(evidence.first_pass_ns() / 1e6)
        yield "stream stood still", milliseconds(evidence.stall_ns() / 1e6)
        yield "device's data meanwhile", mib(device)
        yield "VM's RAM meanwhile", mib(ram)
    else:
        for name in ("startup", "initial data took", "stream stood still",
                     "device's data meanwhile", "VM's RAM meanwhile"):
            yield name, ""
    yield "device: initial bytes", mib(size["initial"])
    yield "device: dirty in pre-copy", mib(size["precopy"])
    yield "device: in stop-copy", mib(size["stopcopy"])
    yield "VM's RAM", mib(run.info["ram"]["transferred"] - evidence.sent())
    yield "page writes meanwhile", str(run.during)
    yield "faults before: 2 MiB, 4 KiB", faults(run.at_rest, "huge_faults", "read_faults",
                                                "write_faults", "mkwrite_faults")
    yield "faults meanwhile: 2 MiB, 4 KiB", faults(run.tracked, "huge_faults", "read_faults",
                                                   "write_faults", "mkwrite_faults")
    yield "pages right after it", f"{result['good']}/{result['pages']}"


def table(column_names, evidences):
    rows = [[name] for name, _ in facts(evidences[0])]
    for evidence in evidences:
        for row, (_, value) in zip(rows, facts(evidence)):
            row.append(value)
    rows.insert(0, [""] + list(column_names))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        yield "  ".join(cells)


def meanwhile(evidence):
    """One sentence on what went on during the startup."""
    device, ram = evidence.moved_meanwhile()
    return (f"startup {milliseconds(evidence.startup_ns() / 1e6)}, initial data "
            f"{milliseconds(evidence.first_pass_ns() / 1e6)}, stream stood still "
            f"{milliseconds(evidence.stall_ns() / 1e6)}; meanwhile QEMU sent {device} bytes "
            f"of the device and {ram} of the VM's RAM")


def gain(precopy, stopcopy):
    """One sentence on what pre-copy buys."""
    return (f"the VM stood still for {milliseconds(precopy.pause_ms())} with pre-copy and "
            f"for {milliseconds(stopcopy.pause_ms())} without")


def assumptions(setup):
    return (f"QEMU was told that {mib(BANDWIDTH)}/s flow while the VM is stopped. It takes "
            "a downtime for bytes divided by that, and knows of no other cost.")


__all__ = ["assumptions", "gain", "meanwhile", "mib", "milliseconds", "table", "timeline", "title"]
