# SPDX-License-Identifier: GPL-2.0-only
"""The timelines of two runs above each other, drawn from what was measured."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import drawing
from .report import milliseconds, title

if TYPE_CHECKING:
    from .evidence import Evidence

COLOUR = {"runs at the source": "#4c9f70", "stands still": "#c0392b",
          "runs at the target": "#2e86c1", "startup": "#e8b84a",
          "initial data": "#8e6bb0", "waits for the target": "#d5c8e0",
          "written meanwhile": "#c59ad9", "while stopped": "#e08e45"}
# So many names go beside a panel
KEY_ROWS = 4
LANES = ("VM", "stream", "target")
AFTERWARDS_NS = 200_000_000


@dataclass
class Bar:
    """What happened in a lane from one moment to another, ns since the migrate command."""
    lane: str
    what: str
    since: int
    till: int


def stream_bars(evidence: Evidence) -> Iterator[tuple[str, int, int]]:
    """The device's stream: its parts, and where it stood still at the barrier."""
    full, barrier = evidence.before_barrier(), evidence.loaded("INITIAL_END")
    stopped, end = evidence.arc("source", "STOP_COPY"), evidence.loaded("END")
    yield "initial data", evidence.loaded("PREFACE"), full
    yield "waits for the target", full, barrier
    yield "written meanwhile", barrier, max(stopped, barrier)
    yield "while stopped", max(stopped, barrier), end


def bars(evidence: Evidence) -> list[Bar]:
    """All bars of a run that are long enough to have a length."""
    stopped, resumed = evidence.stopped(), evidence.resumed()
    start = evidence.run.started
    found = [("VM", "runs at the source", start, stopped),
             ("VM", "stands still", stopped, resumed),
             ("VM", "runs at the target", resumed, resumed + AFTERWARDS_NS),
             ("target", "startup", evidence.startup("starting"), evidence.startup("ready"))]
    found += [("stream", *bar) for bar in stream_bars(evidence)]
    return [Bar(lane, what, since - start, till - start)
            for lane, what, since, till in found if till > since]


def panel(number: int, evidence: Evidence, until: int) -> str:
    """One run, as gnuplot's commands. Each colour is a plot of its own, for the key."""
    found = bars(evidence)
    shown = []
    lines = [f"set label 1 '{title(evidence.run.setup)}: the VM stood still for "
             f"{milliseconds(evidence.pause_ms())}' at graph 0, 1.12"]
    for i, (what, colour) in enumerate(COLOUR.items()):
        lines.append(f"$bar{number}_{i} << EOD")
        mine = [bar for bar in found if bar.what == what]
        for bar in mine or [Bar("VM", what, 0, 0)]:
            y = len(LANES) - LANES.index(bar.lane)
            lines.append(f"{bar.since / 1e9:.6f} {bar.till / 1e9:.6f} {y}")
        lines.append("EOD")
        shown.append(f"$bar{number}_{i} using (($1+$2)/2):3:1:2:($3-0.35):($3+0.35) "
                     f"with boxxyerror fs solid 1 noborder lc rgb '{colour}' "
                     + (f"title '{what}'" if i // KEY_ROWS == number - 1 else "notitle"))
    lines.append(f"set xrange [0:{until / 1e9:.3f}]")
    lines.append("plot " + ", \\\n".join(shown))
    return "\n".join(lines) + "\n"


def frame(number: int, count: int) -> str:
    """Where a panel is, and its part of the key."""
    top = 1 - (number - 1) / count
    lines = [f"set tmargin at screen {top - 0.08:.3f}",
             f"set bmargin at screen {top - 1 / count + 0.15:.3f}"]
    lines.append(f"set key at screen 0.79, {top - 0.07:.3f} left top vertical maxcols 1 Left "
                 "reverse samplen 1 spacing 1.3")
    if number == count:
        lines.append("set xlabel 'seconds since the migrate command'")
    return "\n".join(lines) + "\n"


def remark(text: str) -> str:
    """Below the key of the last panel."""
    return f"set label 2 \"{text}\" at screen 0.79, 0.06 left font ',11' textcolor rgb '#606060'\n"


def script(evidences: list[Evidence], machine: str) -> str:
    count = len(evidences)
    until = max(bar.till for evidence in evidences for bar in bars(evidence))
    lanes = ", ".join(f"'{name}' {len(LANES) - i}" for i, name in enumerate(LANES))
    head = (f"set multiplot\nset border 1\nset tics nomirror\nset ytics ({lanes}) scale 0\n"
            f"set yrange [0.4:{len(LANES) + 0.6}]\nset grid x lc rgb '#d0d0d0'\n"
            "set lmargin at screen 0.08\nset rmargin at screen 0.76\n")
    said = "; ".join(filter(None, ["1 run each", machine]))
    return head + "".join(frame(number, count) + (remark(said) if number == count else "")
                          + panel(number, evidence, until)
                          for number, evidence in enumerate(evidences, 1)) + "unset multiplot\n"


def draw(path: str, evidences: list[Evidence], made_by: str, machine: str = "") -> None:
    """With the machine that the runs were seen on, see drawing.where()."""
    drawing.svg(path, script(evidences, machine), "When a VM stands still, and why", made_by,
                size=(900, 200 * len(evidences) + 20))
