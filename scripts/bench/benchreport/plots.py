# SPDX-License-Identifier: GPL-2.0-only
"""The plots, drawn by gnuplot."""
import os
import sys
from dataclasses import dataclass, field

from .samples import Spread

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "demo"))

# pylint: disable=wrong-import-position
from livemig import drawing

MIB = 1 << 20
STYLE = """set grid lc rgb '#d0d0d0'
set border 3
set tics nomirror
set key outside right center vertical
set style fill solid 0.6
"""


# Light and dark, of a pair of curves
SHADES = (("#9ecae1", "#08519c"), ("#fdae6b", "#a63603"), ("#a1d99b", "#006d2c"))


@dataclass
class Curve:
    """
    Points (x, Spread), with a line through the medians, or a fitted Line instead. One
    that may lie on another (over) is drawn in a darker shade of its colour, as dashes on
    its broad line and dots in its rings.
    """
    name: str
    points: list
    line: object = None
    over: str = None


@dataclass
class Plot:
    """One file."""
    name: str
    title: str
    xlabel: str
    ylabel: str
    curves: list = field(default_factory=list)
    extra: str = ""

    def add(self, name, points, line=None, over=None):
        if points:
            self.curves.append(Curve(name, points, line, over))

    def look(self, one):
        """How gnuplot draws the line of a curve, and its points."""
        over = {each.over for each in self.curves if each.over}
        names = [each.name for each in self.curves if not each.over]
        if one.over:
            dark = SHADES[names.index(one.over) % len(SHADES)][1]
            return f"lc rgb '{dark}' dt 2 lw 2", f"lc rgb '{dark}' pt 7 ps 0.5 lw 1"
        if one.name in over:
            light = SHADES[names.index(one.name) % len(SHADES)][0]
            return f"lc rgb '{light}' lw 6", f"lc rgb '{light}' pt 6 ps 1.6 lw 3"
        number = self.curves.index(one) + 1
        return f"lc {number}", f"lc {number} pt 7 ps 0.6"

    def counts(self):
        """Of how many repetitions its points are."""
        return sorted({spread.count for one in self.curves for _, spread in one.points})


def curve(samples, key, x_unit=1.0, y_unit=1.0):
    return [(x / x_unit, samples.get(key, x).scaled(1 / y_unit)) for x in samples.xs(key)]


def ratio_curve(samples, over, under, x_unit=1.0):
    found = [(x / x_unit, samples.ratio(over, under, x)) for x in samples.xs(over)]
    return [(x, value) for x, value in found if isinstance(value, Spread)]


def fitted(samples, key, x_unit, y_unit):
    """The function's text for gnuplot."""
    line = samples.line(key)
    return line and f"{line.base / y_unit:.9g} + {line.slope * x_unit / y_unit:.9g} * x"


def rates(samples, way):
    plot = Plot(f"{way}.svg", f"{way}: rate against memfd", "buffer, KiB", "driver / memfd",
                extra="set logscale x 2\nset yrange [0:]\n")
    for prefix, where in (("native.", "natively, model"), ("", "driver in L1")):
        for data in ("random", "zero"):
            base = f"{prefix}{way}.{data}"
            plot.add(f"{data}, {where}",
                     ratio_curve(samples, f"{base}.driver", f"{base}.memfd", 1024))
    if plot.curves:
        plot.curves.append(Curve("target", [], "0.8"))
    return plot


def in_use(samples):
    plot = Plot("in-use.svg", "arm, collect 512 pages, disarm, against memory in use",
                "memory in use, MiB", "ms", extra="set yrange [0:]\nset xrange [0:]\n")
    for key, name in (("track.arm", "arm"), ("track.collect-few", "collect 512 pages"),
                      ("track.disarm", "disarm")):
        plot.add(name, curve(samples, key, MIB, 1e6), fitted(samples, key, MIB, 1e6))
    return plot


def stall(samples):
    plot = Plot("stall.svg", "longest load during arm, against memory in use",
                "memory in use, GiB", "ms", extra="set yrange [0:]\nset xrange [0:]\n")
    for entries, pages in (("2m", "2 MiB"), ("4k", "4 KiB")):
        for phase, name in (("arm", "first"), ("arm-2", "second")):
            plot.add(f"{pages}, {name} migration",
                     curve(samples, f"stall.{entries}.{phase}.read", 1 << 30, 1e6))
    return plot


def dirty(samples):
    plot = Plot("dirty.svg", "collect against dirty pages", "dirty pages", "ms",
                extra="set yrange [0:]\nset xrange [0:]\n")
    for how in ("dense", "spread"):
        for what in ("collect", "protect"):
            key = f"track.{what}.{how}"
            plot.add(f"{what}, {how}", curve(samples, key, 1, 1e6), fitted(samples, key, 1, 1e6))
    return plot


def guest(samples):
    plot = Plot("guest.svg", "slowdown of a writing guest", "% of pages written between collects",
                "times untracked", extra="set logscale xy\nset xrange [0.7:140]\n")
    for key, name in (("tracked", "tracked"), ("disarmed", "after disarm"), ("trapped", "trapped")):
        plot.add(name, ratio_curve(samples, f"guest.{key}", "guest.none"))
    return plot


def downtime(samples, axis, label):
    plot = Plot(f"downtime-{axis}.svg", f"downtime over {label.split(',')[0]}", label, "ms",
                extra="set yrange [0:]\nset xrange [0:]\n")
    for kind, said in (("precopy", "pre-copy"), ("stopcopy", "stop-copy")):
        # The two are nearly the same
        stood = f"{said}, VM ran nowhere"
        plot.add(stood, curve(samples, f"downtime.{axis}.{kind}.pause"))
        plot.add(f"{said}, QEMU reports", curve(samples, f"downtime.{axis}.{kind}.qemu"),
                 over=stood)
    return plot


def where(machine):
    return drawing.where(machine.get("L1 cpu", ""), machine.get("L1 cpus"))


def subtitle(plot, machine):
    """What the points are, and where they come from."""
    counts = plot.counts()
    if not counts:
        return where(machine)
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = f"median and range of {runs} runs" if counts[-1] > 1 else "1 run"
    return "; ".join(filter(None, [what, where(machine)]))


def script(plot, machine):
    """What gnuplot is told."""
    more = subtitle(plot, machine)
    lines = [STYLE, plot.extra, f"set xlabel '{plot.xlabel}'", f"set ylabel '{plot.ylabel}'",
             f"set title \"{plot.title}" + (f"\\n{{/*0.8 {more}}}" if more else "") + "\""]
    shown = []
    for i, one in enumerate(plot.curves, 1):
        path, dots = plot.look(one)
        if one.points:
            lines.append(f"$data{i} << EOD")
            lines += [f"{x:.9g} {s.median:.9g} {s.low:.9g} {s.high:.9g}" for x, s in one.points]
            lines.append("EOD")
            shown.append(f"$data{i} using 1:2:3:4 with yerrorbars {dots} "
                         f"title '{one.name}'")
        if one.line:
            shown.append(f"{one.line} with lines {path} " +
                         ("notitle" if one.points else f"dt 2 title '{one.name}'"))
        else:
            shown.append(f"$data{i} using 1:2 with lines {path} notitle")
    lines.append("plot " + ", \\\n".join(shown))
    return "\n".join(lines) + "\n"


def all_plots(samples):
    found = [rates(samples, "save"), rates(samples, "load"), in_use(samples), dirty(samples),
             stall(samples), guest(samples), downtime(samples, "memory", "memory in use, MiB"),
             downtime(samples, "startup", "target's startup, s".replace("'", "’"))]
    return [plot for plot in found if plot.curves]


def draw_all(samples, folder, made_by, machine):
    """Draws what there is something for; returns the names of the files."""
    drawn = []
    for plot in all_plots(samples):
        drawing.svg(os.path.join(folder, plot.name), script(plot, machine), plot.title, made_by)
        drawn.append(plot.name)
    return drawn
