# SPDX-License-Identifier: GPL-2.0-only
"""What a run's evidence says: when things happened, and how many bytes moved when."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import trace

if TYPE_CHECKING:
    from .migration import Run
    from .trace import Record

FILE_HEADER = 64
RECORD_HEADER = 24
PREFACE_FIXED = 24
UNIT_PAGES = 512
ANNOUNCED = {"vfio_query_precopy_size": r"\binit (\d+)",
             "vfio_state_pending_estimate": r"\binitial size (\d+)"}
PAYLOAD = {"ZERO": 8, "INITIAL_END": 0, "STATE": 8, "END": 16}


@dataclass
class Moment:
    """Something that happened; at is monotonic ns, seen_by says how we know."""
    at: int
    where: str
    what: str
    seen_by: str


class Evidence:
    """Questions to a Run.  Those that find nothing answer None."""

    def __init__(self, run: Run, pair: dict[str, str] = None) -> None:
        self.run = run
        self.pair = pair or run.setup.carrier
        self.side = {bdf: name for name, bdf in self.pair.items()}

    def devices(self) -> list[Evidence]:
        """The same for each device of the VM."""
        return [Evidence(self.run, pair) for pair in self.run.setup.pairs]

    # The driver's trace points

    def of(self, where: str, name: str, **fields: Any) -> list[Record]:
        """All records of a trace point on one side."""
        return [r for r in self.run.records
                if r.name == name and self.side.get(r.fields.get("dev")) == where
                and all(r.fields.get(k) == v for k, v in fields.items())]

    def first(self, where: str, name: str, **fields: Any) -> int:
        found = self.of(where, name, **fields)
        return found[0].at if found else None

    def last(self, where: str, name: str, **fields: Any) -> int:
        found = self.of(where, name, **fields)
        return found[-1].at if found else None

    def arc(self, where: str, to: str) -> int:
        return self.first(where, "precopy_arc", to=to, ret=0)

    def arcs(self, where: str) -> list[str]:
        return [r.fields["to"] for r in self.of(where, "precopy_arc", ret=0)]

    def saved(self, kind: str) -> int:
        return self.first("source", "precopy_save_record", type=kind)

    def loaded(self, kind: str) -> int:
        return self.first("target", "precopy_load_record", type=kind)

    def startup(self, phase: str) -> int:
        return self.first("target", "precopy_startup", phase=phase)

    # QEMU

    def event(self, where: str, name: str, **data: Any) -> int:
        for event in self.run.events.get(where, ()):
            have = event.get("data", {})
            if event["event"] == name and all(have.get(k.replace("_", "-")) == v
                                              for k, v in data.items()):
                at = trace.qmp_time(event, self.run.offset)
                if at >= self.run.started:
                    return at
        return None

    def logged(self, where: str, name: str) -> int:
        for record in self.run.log.get(where, ()):
            if record.name == name and record.at >= self.run.started:
                return record.at
        return None

    def all_logged(self, where: str, name: str, since: int = 0) -> list[int]:
        since = max(since, self.run.started)
        return [r.at for r in self.run.log.get(where, ()) if r.name == name and r.at >= since]

    def acks(self) -> list[int]:
        """The target's words that it is ready, as the source received them."""
        return self.all_logged("source", "source_return_path_thread_switchover_acked")

    def acked(self) -> int:
        """The one after which the source may stop the VM."""
        return self.acks()[-1] if self.acks() else None

    def announced_initial(self) -> int:
        """The initial bytes of the first PRECOPY_INFO that QEMU asked for."""
        for record in self.run.log.get("source", ()):
            # QEMU 10.0 tells what it knows; it asked before.
            said = ANNOUNCED.get(record.name)
            if said and record.at >= self.run.started and self.pair["source"] in record.text:
                return int(re.search(said, record.text)[1])
        return None

    def stopped(self) -> int:
        """
        The device is told to stop right after the processors were; QEMU's event
        comes only when all is stopped.
        """
        arcs = [r.at for r in self.of("source", "precopy_arc", ret=0)
                if r.to in ("PRE_COPY_P2P", "RUNNING_P2P", "STOP", "STOP_COPY")]
        said = self.event("source", "STOP")
        return min(arcs + ([said] if said else [])) if arcs else None

    def resumed(self) -> int:
        """QEMU announces it, starts the device and then the processors."""
        said, running = self.event("target", "RESUME"), self.arc("target", "RUNNING")
        return max(said, running) if said and running else None

    def pause_ms(self) -> float:
        """How long the VM ran nowhere."""
        return (self.resumed() - self.stopped()) / 1e6

    # The startup, and what went on meanwhile

    def startup_ns(self) -> int:
        return self.startup("ready") - self.startup("starting")

    def before_barrier(self) -> int:
        """When the target had taken in all of the initial data but its end."""
        records = self.of("target", "precopy_load_record")
        end = next(n for n, r in enumerate(records) if r.type == "INITIAL_END")
        return records[end - 1].at

    def first_pass_ns(self) -> int:
        return self.before_barrier() - self.loaded("PREFACE")

    def stall_ns(self) -> int:
        """How long the stream stood still at the barrier."""
        return self.loaded("INITIAL_END") - self.before_barrier()

    def sample_at(self, at: int) -> tuple[int, int]:
        """Bytes that QEMU had sent: all, and the device's."""
        before = [(0, 0, 0)] + [s for s in self.run.samples if s[0] <= at]
        return before[-1][1:]

    def moved_meanwhile(self) -> tuple[int, int]:
        """Bytes that QEMU sent during the startup: the device's, and the VM's RAM."""
        all0, device0 = self.sample_at(self.startup("starting"))
        all1, device1 = self.sample_at(self.startup("ready"))
        return device1 - device0, all1 - all0 - (device1 - device0)

    # Bytes

    def wire_length(self, record: Record) -> int:
        """Bytes of a record in the stream; the trace tells the bytes it is about."""
        if record.type in ("DATA", "ENGINE", "WINDOW"):
            return RECORD_HEADER + record.length
        return RECORD_HEADER + PAYLOAD.get(record.type, self.preface_payload())

    def preface_payload(self) -> int:
        pages = int(self.run.ready["bar_pages"]) // int(self.run.ready["devices"])
        units = -(-pages // UNIT_PAGES)
        return PREFACE_FIXED + 8 * -(-units // 64)

    def sizes(self) -> dict[str, int]:
        """Bytes on the wire in each phase: initial, pre-copy, stop-copy."""
        stop_copy = self.arc("source", "STOP_COPY") or 0
        barrier = self.saved("INITIAL_END") or 0
        size = {"initial": 0, "precopy": 0, "stopcopy": 0}
        for record in self.of("source", "precopy_save_record"):
            if record.at >= stop_copy:
                phase = "stopcopy"
            else:
                phase = "initial" if record.at <= barrier else "precopy"
            size[phase] += self.wire_length(record)
        size["initial" if size["initial"] else "stopcopy"] += FILE_HEADER
        return size

    def sent(self) -> int:
        return sum(self.sizes().values())

    # Initial data that began anew

    def asked_again(self) -> int:
        """When QEMU noticed, and wanted another word of the target."""
        if not self.run.reinit_at:
            return None
        found = self.all_logged("source", "vfio_query_precopy_size_request_switchover_ack",
                                self.run.reinit_at)
        return found[0] if found else None

    def again(self, kind: str) -> int:
        return self.last("target", "precopy_load_record", type=kind) if self.run.reinit_at else None

    def first_ack(self) -> int:
        return self.acks()[0] if self.run.reinit_at and self.acks() else None

    # The order of things

    def moments(self) -> list[Moment]:
        qmp, driver, log = "QMP event", "driver's trace", "QEMU's trace"
        found = [
            (self.run.started, "source", "migrate command given", "QMP command"),
            (self.arc("source", "PRE_COPY"), "source", "PRE_COPY entered", driver),
            (self.arc("target", "RESUMING"), "target", "RESUMING entered", driver),
            (self.saved("PREFACE"), "source", "preface sent", driver),
            (self.loaded("PREFACE"), "target", "preface received", driver),
            (self.startup("starting"), "target", "startup begins", driver),
            (self.saved("INITIAL_END"), "source", "initial data sent", driver),
            (self.run.reinit_at, "source", "initial data begins anew", "test knob"),
            (self.asked_again(), "source", "another ack asked for", log),
            (self.startup("ready"), "target", "startup ends: ready", driver),
            (self.again("PREFACE"), "target", "preface received again", driver),
            (self.again("INITIAL_END"), "target", "barrier passed again", driver),
            (self.first_ack(), "source", "first of two acks arrives", log),
            (self.loaded("INITIAL_END"), "target", "barrier passed", driver),
            (self.logged("target", "loadvm_approve_switchover"), "target",
             "switchover acknowledged", log),
            (self.acked(), "source", "acknowledgment arrives", log),
            (self.arc("source", "PRE_COPY_P2P"), "source", "PRE_COPY_P2P entered", driver),
            (self.arc("source", "RUNNING_P2P"), "source", "RUNNING_P2P entered", driver),
            (self.arc("source", "STOP_COPY"), "source", "STOP_COPY entered", driver),
            (self.event("source", "STOP"), "source", "VM has stopped", qmp),
            (self.saved("END"), "source", "last byte sent", driver),
            (self.loaded("END"), "target", "last byte loaded", driver),
            (self.arc("target", "RUNNING"), "target", "RUNNING entered", driver),
            (self.run.heard, "target", "guest heard again", "its heartbeat"),
            (self.event("target", "RESUME"), "target", "VM is about to run", qmp),
            (self.event("source", "MIGRATION", status="completed"), "source",
             "migration completed", qmp),
        ]
        return sorted((Moment(*f) for f in found if f[0] is not None), key=lambda m: m.at)
