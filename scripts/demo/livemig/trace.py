# SPDX-License-Identifier: GPL-2.0-only
"""
Evidence: the driver's trace points, QEMU's trace log and QMP events, in one time.

Both QEMU run on the same kernel, so its trace has one clock for source and target.
It is set to "mono", which is what time.monotonic_ns() reads; QEMU stamps with the
time of day, which differs from that by a constant.
"""
from __future__ import annotations

import datetime
import glob
import os
import re
import shutil
import time
from typing import Any

EPOCH = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
TRACEFS = "/sys/kernel/tracing"


def day_minus_mono() -> int:
    return time.time_ns() - time.monotonic_ns()


class Record:
    """One trace point that was hit."""

    def __init__(self, at: int, name: str, fields: dict[str, Any]) -> None:
        self.at = at
        self.name = name
        self.fields = fields

    def __repr__(self) -> str:
        return f"{self.at / 1e9:.6f} {self.name} {self.fields}"

    def __getattr__(self, field: str) -> Any:
        try:
            return self.fields[field]
        except KeyError:
            raise AttributeError(field) from None


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


class DriverTrace:
    """The driver's trace points, between start() and stop()."""

    LINE = re.compile(r"\s(\d+)\.(\d{6}): (precopy_\w+): (.*)$")

    def __init__(self) -> None:
        self.events = os.path.join(TRACEFS, "events", "precopy")

    def there(self) -> bool:
        return os.path.isdir(self.events)

    def start(self) -> None:
        write(f"{TRACEFS}/tracing_on", "0")
        write(f"{TRACEFS}/trace_clock", "mono")
        write(f"{TRACEFS}/buffer_size_kb", "4096")
        write(f"{TRACEFS}/trace", "")
        write(f"{self.events}/enable", "1")
        write(f"{TRACEFS}/tracing_on", "1")

    def stop(self) -> None:
        write(f"{TRACEFS}/tracing_on", "0")
        write(f"{self.events}/enable", "0")

    def lost(self) -> int:
        """Records that the ring buffer had no room for."""
        count = 0
        for path in glob.glob(f"{TRACEFS}/per_cpu/cpu*/stats"):
            with open(path) as file:
                count += sum(int(line.split(":")[1]) for line in file
                             if line.startswith(("overrun", "dropped events")))
        return count

    def records(self, keep: str) -> list[Record]:
        """All records; the raw trace goes to the file keep."""
        shutil.copyfile(f"{TRACEFS}/trace", keep)
        with open(keep, errors="replace") as file:
            found = [self.parse(m) for m in map(self.LINE.search, file) if m]
        return sorted(found, key=lambda r: r.at)

    @staticmethod
    def parse(match: re.Match) -> Record:
        seconds, micros, name, rest = match.groups()
        fields = {"dev": rest.split(" ")[0]}
        for key, value in re.findall(r"(\w+)=(\S+)", rest):
            fields[key] = int(value, 0) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", value) else value
        return Record(int(seconds) * 10**9 + int(micros) * 1000, name, fields)


def time_of_day(stamp: str) -> int:
    """QEMU 10.0 writes PROCESS@SECONDS, later ones a date; in ns."""
    if "@" in stamp:
        return int(stamp.split("@")[1].replace(".", "")) * 1000
    day = datetime.datetime.fromisoformat(stamp)
    return (day - EPOCH) // datetime.timedelta(microseconds=1) * 1000


def qemu_log(path: str, offset: int) -> list[Record]:
    """QEMU's trace log as records; offset is what day_minus_mono() said."""
    found = []
    with open(path, errors="replace") as file:
        for line in file:
            match = re.match(r"(\d+@\d+\.\d{6}(?=:)|\S+T\S+Z)[: ](\w+) *(.*)$", line)
            if match:
                found.append(Record(time_of_day(match[1]) - offset, match[2],
                                    {"text": match[3]}))
    return found


def qmp_time(event: dict[str, Any], offset: int) -> int:
    stamp = event["timestamp"]
    return stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000 - offset
