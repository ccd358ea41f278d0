# SPDX-License-Identifier: GPL-2.0-only
"""How numbers, tables and the whole report look as text."""
from dataclasses import dataclass, field

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass
class Section:
    """A heading, tables (title, header, rows) and sentences."""
    title: str
    where: str                          # native, L1, ...
    tables: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    fits: dict = field(default_factory=dict)

    def table(self, title, header, rows):
        if rows:
            self.tables.append((title, header, rows))

    def as_dict(self):
        return {"title": self.title, "where": self.where, "notes": self.notes, "fits": self.fits,
                "tables": [{"title": t, "header": h, "rows": r} for t, h, r in self.tables]}


def size(count):
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count:g} B"


def number(value):
    """Three digits that mean something."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    if abs(value) < 0.095:
        digits = 3
    return f"{value:.{digits}f}"


def spread(value):
    if value is None:
        return "-"
    return f"{number(value.median)} [{number(value.low)}..{number(value.high)}]"


def seconds(ns):
    """Nanoseconds, in the unit that fits."""
    for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(ns) >= unit:
            return f"{number(ns / unit)} {name}"
    return f"{number(ns)} ns"


def time_spread(value):
    if value is None:
        return "-"
    return f"{seconds(value.median)} [{seconds(value.low)}..{seconds(value.high)}]"


def table(header, rows):
    rows = [list(header)] + [list(row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        yield "  ".join(cells).rstrip()
        if not i:
            yield "  ".join("-" * w for w in widths)


def wrap(sentence, width=96, indent="  "):
    line = indent
    for word in sentence.split():
        if len(line) + len(word) + 1 > width and line.strip():
            yield line.rstrip()
            line = indent
        line += word + " "
    yield line.rstrip()


def section(part):
    title = f"{part.title} ({part.where})"
    yield from (title, "=" * len(title), "")
    for name, header, rows in part.tables:
        yield name
        yield from ("  " + line for line in table(header, rows))
        yield ""
    for note in part.notes:
        yield from wrap(note)
        yield ""


def report(machine, parts, drawn):
    lines = ["precopy-vfio-pci: benchmark", "===========================", ""]
    lines += [f"{name + ':':18} {value}" for name, value in machine.items()] + [""]
    lines += wrap("Every figure is the median of repetitions that took turns, with the smallest "
                  "and the largest in brackets. Ratios are taken within a repetition.", indent="")
    lines.append("")
    for part in parts:
        lines += section(part)
    if drawn:
        lines.append("Plots: " + ", ".join(drawn))
    return "\n".join(lines) + "\n"
