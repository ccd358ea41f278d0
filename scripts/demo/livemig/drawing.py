# SPDX-License-Identifier: GPL-2.0-only
"""SVG files by gnuplot, each of which says what made it."""
from __future__ import annotations

import os
import re
import subprocess
from xml.sax.saxutils import escape

TERMINAL = "set terminal svg size {},{} dynamic enhanced background rgb 'white' font 'sans,13'\n"
LICENCE = "<!-- SPDX-License-Identifier: GPL-2.0-only -->"


def this_machine() -> str:
    """where() this runs."""
    with open("/proc/cpuinfo") as file:
        cpu = next((line.partition(": ")[2].strip() for line in file
                    if line.startswith("model name")), "")
    return where(cpu, os.cpu_count())


def where(cpu: str, cpus: int) -> str:
    """On what it was measured, as far as that is known: the processor's model and number."""
    found = ["emulated"] if "TCG" in cpu else ["in a virtual machine"] if cpu else []
    return ", ".join(found + ([f"{cpus} CPUs"] if cpus else []))


def svg(path: str, script: str, about: str, made_by: str, size: tuple[int, int] = (900, 440)) -> None:
    """What gnuplot makes of a script, with what it shows and which command made it."""
    subprocess.run(["gnuplot"], text=True, check=True,
                   input=TERMINAL.format(*size) + f"set output '{path}'\n" + script)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    said = f"<title>{escape(about)}</title>\n<desc>Drawn by {escape(made_by)}</desc>"
    text = re.sub("<title>.*?</title>\n<desc>.*?</desc>", lambda _: said, text, count=1)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace("?>\n", f"?>\n{LICENCE}\n", 1))
