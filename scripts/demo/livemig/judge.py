# SPDX-License-Identifier: GPL-2.0-only
"""
What must be true of a run.

A property is a function with one line of documentation, which names it; it takes
the Evidence and returns None, or a sentence that says what is wrong.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import vm
from .migration import FAST

if TYPE_CHECKING:
    from .evidence import Evidence
    from .migration import Run

# What may pass on a busy machine between two things that follow each other at once
STALL_SLACK_MS = 1000
# Config space as QEMU sends it, with what it says about it
CONFIG_MAX = 4096 + 1024
# A startup during which much must have moved
LONG_MS = 3000


class Skip(Exception):
    """Cannot be judged here; the text says why."""


def kvm(ev: Evidence) -> str:
    """the VM ran under KVM"""
    if ev.run.setup.accel != "kvm":
        raise Skip("KVM does not work here")
    if not ev.run.kvm:
        return "QEMU was told to use KVM and does not"
    return None


def trace_complete(ev: Evidence) -> str:
    """no trace record was lost"""
    if ev.run.records_lost:
        return f"the trace buffer was too small, {ev.run.records_lost} records are missing"
    if not ev.run.records:
        return "the driver's trace is empty"
    return None


def completed(ev: Evidence) -> str:
    """the migration completed on both sides"""
    if ev.run.info.get("status") != "completed":
        return f"the source's status is {ev.run.info.get('status')!r}"
    if ev.event("target", "MIGRATION", status="completed") is None:
        return "the target never said that it had completed"
    return None


def in_order(steps: Any) -> str:
    """A sentence if a step is missing or two are in the wrong order."""
    for name, at in steps:
        if at is None:
            return f"never seen: {name}"
    for (earlier, a), (later, b) in zip(steps, steps[1:]):
        if a > b:
            return f"{later} came {(a - b) / 1e6:.1f} ms before {earlier}"
    return None


def source_states(ev: Evidence) -> str:
    """the source went through the right states in the right order"""
    arcs = [s for s in ev.arcs("source") if s != "RUNNING"]
    if not ev.run.setup.precopy:
        if any(s.startswith("PRE_COPY") for s in arcs):
            return "the device entered PRE_COPY although it was told not to offer it"
        return in_order([("STOP", ev.arc("source", "STOP")),
                         ("STOP_COPY", ev.arc("source", "STOP_COPY"))])
    return in_order([("PRE_COPY", ev.arc("source", "PRE_COPY")),
                     ("PRE_COPY_P2P", ev.arc("source", "PRE_COPY_P2P")),
                     ("STOP_COPY", ev.arc("source", "STOP_COPY"))])


def target_states(ev: Evidence) -> str:
    """the target went from RESUMING to RUNNING, after the last byte"""
    return in_order([("RESUMING on the target", ev.arc("target", "RESUMING")),
                     ("the end of the stream", ev.loaded("END")),
                     ("RUNNING on the target", ev.arc("target", "RUNNING"))])


def startup(ev: Evidence) -> str:
    """the preface came first and started the target; the startup ended before the barrier"""
    records = ev.of("target", "precopy_load_record")
    if not records or records[0].fields["type"] != "PREFACE":
        return "the first record that the target saw is not the preface"
    return in_order([("the preface", ev.loaded("PREFACE")),
                     ("the startup's begin", ev.startup("starting")),
                     ("the startup's end", ev.startup("ready")),
                     ("the barrier", ev.loaded("INITIAL_END"))])


def delay_taken(ev: Evidence) -> str:
    """the startup took at least as long as it was told to"""
    took = (ev.startup("ready") - ev.startup("starting")) / 1e6
    if took < ev.run.setup.delay_ms:
        return f"it took {took:.0f} ms instead of {ev.run.setup.delay_ms} ms"
    return None


def acknowledged(ev: Evidence) -> str:
    """the target acknowledged after its startup, and only then the VM stopped"""
    return in_order([("the startup's end", ev.startup("ready")),
                     ("the acknowledgment", ev.acked()),
                     ("the VM stopping", ev.stopped())])


def kept_flowing(ev: Evidence) -> str:
    """the stream stood still for no longer than the startup outlasted the initial data"""
    # Whatever came last of what the barrier has to wait for
    free = max(ev.startup("ready"), ev.before_barrier(), ev.saved("INITIAL_END"))
    late = (ev.loaded("INITIAL_END") - free) / 1e6
    if late > STALL_SLACK_MS * vm.patience:
        return (f"the barrier was passed {late:.0f} ms late: it stood still for "
                f"{ev.stall_ns() / 1e6:.0f} ms, the startup took {ev.startup_ns() / 1e6:.0f} ms "
                f"and the initial data {ev.first_pass_ns() / 1e6:.0f} ms")
    return None


def ram_flowed(ev: Evidence) -> str:
    """the device's data and the VM's RAM went on during a startup that took long"""
    device, ram = ev.moved_meanwhile()
    if device < 1 << 20 or ram <= 0:
        return f"{device} bytes of the device and {ram} of RAM moved meanwhile"
    return None


def began_anew(ev: Evidence) -> str:
    """initial data that began anew was acknowledged anew before the VM stopped"""
    if len(ev.acks()) != 2:
        return f"the target acknowledged {len(ev.acks())} times"
    asked = in_order([("the restart", ev.run.reinit_at),
                      ("QEMU asking for another ack", ev.asked_again()),
                      ("the second ack", ev.acked())])
    return asked or in_order([("the first startup's end", ev.startup("ready")),
                              ("the first ack", ev.first_ack()),
                              ("the restart", ev.run.reinit_at),
                              ("the second preface", ev.again("PREFACE")),
                              ("the second startup's end", ev.last("target", "precopy_startup",
                                                                   phase="ready")),
                              ("the second barrier", ev.again("INITIAL_END")),
                              ("the second ack", ev.acked()),
                              ("the VM stopping", ev.stopped())])


def went_on(result: dict[str, str]) -> str:
    """What is wrong with a VM that stayed at the source, or None."""
    if result["state"] != "RUNNING":
        return f"the device is in {result['state']}"
    if result["good"] != result["pages"] or result["live_bad"] != "0":
        return f"{result['good']} of {result['pages']} pages are right"
    if result["dma_bad"] != "0":
        return f"{result['dma_bad']} pages that the device wrote are wrong"
    if result["since_mark"] == "0":
        return "the guest did not write any more"
    return None


def spoilt(ev: Evidence) -> str:
    """a restart between ack and switchover failed the migration, and the VM went on"""
    result = ev.run.spoilt
    if not result["stopped"]:
        return f"it failed before the VM stopped: {result['why']}"
    if "ACK" not in result["why"].upper():
        return f"it failed because of something else: {result['why']}"
    return went_on(result)


def initial_bytes(ev: Evidence) -> str:
    """the announced initial bytes cover what was sent as such"""
    announced, sent = ev.announced_initial(), ev.sizes()["initial"]
    if announced is None:
        return "QEMU never asked for them"
    if announced < sent:
        return f"announced {announced}, sent {sent}"
    return None


def config_bytes(ev: Evidence) -> int:
    """
    Bytes of the device's config space, which QEMU counts as the device's if it sends
    them by multifd. It does not say how many they are, but each device has as many.
    """
    if not ev.run.setup.device_by_multifd:
        return 0
    more = ev.run.info["vfio"]["transferred"] - ev.run.counted["saved"]
    return more if 0 < more < CONFIG_MAX * len(ev.devices()) else 0


def bytes_agree(ev: Evidence) -> str:
    """QEMU, both drivers' counters and the trace agree on the bytes that moved"""
    counts = {"QEMU": ev.run.info.get("vfio", {}).get("transferred") - config_bytes(ev),
              "the source": ev.run.counted["saved"],
              "the target": ev.run.counted["loaded"],
              "the trace": sum(device.sent() for device in ev.devices())}
    if len(set(counts.values())) > 1:
        return ", ".join(f"{who} counts {n}" for who, n in counts.items())
    return None


def in_use(ev: Evidence) -> str:
    """at least what the guest uses of the device was moved"""
    used = int(ev.run.ready["used_pages"]) * 4096
    if used < ev.run.setup.in_use_mib << 20:
        return f"the guest uses only {used} bytes"
    moved = sum(device.sent() for device in ev.devices())
    if moved < used:
        return f"the guest uses {used} bytes, {moved} moved"
    return None


def kernel_has(function: str) -> bool:
    """As far as kallsyms tells; true where it tells nothing."""
    try:
        with open("/proc/kallsyms", encoding="utf-8") as file:
            names = {line.split()[2] for line in file}
    except FileNotFoundError:
        return True
    return not names or function in names


def cheap_at_rest(ev: Evidence) -> str:
    """before the migration each 2 MiB took one fault, and no store was notified"""
    faults, units = ev.run.at_rest, int(ev.run.ready["used_pages"]) // 512
    if not faults:
        raise Skip("the VM did not boot here")
    if faults["mkwrite_faults"]:
        return f"{faults['mkwrite_faults']} stores were notified"
    if not faults["huge_faults"] and kernel_has("vmf_insert_folio_pmd"):
        return "there was no 2 MiB fault"
    small = faults["read_faults"] + faults["write_faults"]
    if small > units:
        return f"{small} small faults for {units} units of 2 MiB"
    return None


def guest_wrote(ev: Evidence) -> str:
    """the guest wrote before, during and after the migration"""
    for when in ("before", "during", "after"):
        if not getattr(ev.run, when):
            return f"there was not one page write {when} it"
    return None


def all_pages(ev: Evidence) -> str:
    """every byte of the device is right after the migration"""
    result = ev.run.result
    for what in ("lost", "corrupt", "stray", "live_bad"):
        if result[what] != "0":
            return f"{result[what]} {what}; " + "; ".join(ev.run.bad)
    if result["good"] != result["pages"]:
        return f"{result['good']} of {result['pages']} pages are right"
    return None


def dma_right(ev: Evidence) -> str:
    """what the devices wrote to the VM's RAM meanwhile is right, and the log told of all"""
    result, rounds = ev.run.result, int(ev.run.marked["dma_rounds"])
    if not int(result["dma_pages"]):
        return "the guest has found no engine"
    if result["dma_bad"] != "0":
        return f"{result['dma_bad']} of {result['dma_pages']} pages are wrong"
    if int(result["dma_rounds"]) <= rounds:
        return f"all was written {result['dma_rounds']} times, as often as before the migration"
    if ev.run.setup.dma_log and ev.run.counted["unlogged"]:
        return f"{ev.run.counted['unlogged']} stores went to pages that nobody could know of"
    return None


def notices(ev: Evidence) -> str:
    """the guest's check notices bytes that were changed behind its back"""
    pages, found = len(ev.run.ready["sample"].split(",")), ev.run.disturbed
    # The guest may have overwritten some before it began to check.
    corrupt, stray = int(found["corrupt"]) + int(found["live_bad"]), int(found["stray"])
    if corrupt < (pages - 1) // 2 or stray != 1:
        return f"{pages} pages were changed, it found {corrupt} corrupt and {stray} stray"
    return None


def cancelled(ev: Evidence) -> str:
    """a migration cancelled amid pre-copy left the VM running and its device right"""
    return went_on(ev.run.cancelled)


def device_idle(ev: Evidence) -> str:
    """both devices are back in RUNNING when QEMU is gone"""
    for name, state in ev.run.end_state.items():
        if state != "RUNNING":
            return f"the {name}'s device is in {state}"
    return None


def kernel_quiet(ev: Evidence) -> str:
    """the kernel had nothing to complain about"""
    return "; ".join(ev.run.complaints[:3]) or None


ALWAYS = (kvm, trace_complete, completed, source_states, target_states, startup, delay_taken,
          bytes_agree, in_use, cheap_at_rest, guest_wrote, all_pages, device_idle, kernel_quiet)
PRECOPY_ONLY = (acknowledged, kept_flowing, initial_bytes)


def unasked(ev: Evidence) -> str:
    """nobody asked for an acknowledgment, and there was none"""
    if ev.acks():
        return f"the target acknowledged {len(ev.acks())} times"
    return None


def carried(ev: Evidence) -> str:
    """the last of the device's state went by the channels that it should go by"""
    threads = [len(ev.all_logged(*where)) for where in (
        ("source", "vfio_save_complete_precopy_thread_start"),
        ("target", "vfio_load_bufs_thread_end"))]
    wanted = len(ev.devices()) if ev.run.setup.device_by_multifd else 0
    if threads != [wanted, wanted]:
        return (f"{threads[0]} threads of the source and {threads[1]} of the target moved it, "
                f"it should be {wanted}")
    if ev.run.setup.multifd and not ev.run.info["ram"]["multifd-bytes"]:
        return "nothing went by multifd"
    return None


def latest(moments: Iterable[Any]) -> int:
    """The last of several, all of which must have been."""
    return None if None in moments else max(moments)


def first_of(moments: Iterable[Any]) -> int:
    return min((at for at in moments if at is not None), default=None)


def together(ev: Evidence) -> str:
    """no device stopped before all had given up P2P, and none ran before all could be reached"""
    devices = ev.devices()
    running = "PRE_COPY" if ev.run.setup.precopy else "RUNNING"
    source = [(f"all in {running}_P2P", latest([d.arc("source", running + "_P2P")
                                                for d in devices])),
              ("the first in STOP_COPY", first_of([d.arc("source", "STOP_COPY")
                                                   for d in devices]))]
    # It was in RUNNING_P2P before, on its way to RESUMING.
    reached = [d.last("target", "precopy_arc", to="RUNNING_P2P", ret=0) for d in devices]
    target = [("the last byte of the last device", latest([d.loaded("END") for d in devices])),
              ("the first in RUNNING_P2P", first_of(reached)),
              ("all in RUNNING_P2P", latest(reached)),
              ("the first in RUNNING", first_of([d.arc("target", "RUNNING") for d in devices]))]
    return in_order(source) or in_order(target)


def iommu_told(ev: Evidence) -> str:
    """QEMU asked the IOMMU, and no device, what DMA had written to the VM's memory"""
    asked = ev.logged("source", "iommufd_backend_get_dirty_bitmap")
    calls = [("tracking begun", ev.logged("source", "iommufd_backend_set_dirty")),
             ("a bitmap asked for", asked), ("switchover", ev.stopped()),
             ("a bitmap asked for while the VM stood still",
              first_of(ev.all_logged("source", "iommufd_backend_get_dirty_bitmap", ev.stopped())))]
    failed = [r for r in ev.run.log["source"]
              if r.name.startswith("iommufd_backend_") and not r.text.endswith("(0)")]
    if failed:
        return f"QEMU says {failed[0].name} {failed[0].text}"
    return in_order(calls)


def properties(run: Run) -> tuple[Callable, ...]:
    found = ALWAYS + (PRECOPY_ONLY if run.setup.precopy else ())
    if run.setup.model == "engine":
        found += (dma_right,)
    if run.cancelled:
        found += (cancelled,)
    if run.spoilt:
        found += (spoilt,)
    if run.setup.reinit:
        found += (began_anew,)
    if run.setup.bandwidth < FAST and run.setup.delay_ms >= LONG_MS:
        found += (ram_flowed,)
    if run.disturbed:
        found += (notices,)
    if run.setup.iommu_tracks:
        found += (iommu_told,)
    return found


def verdicts(evidence: Evidence, chosen: Any = None) -> list[tuple]:
    """(name, what is wrong or None, why it was skipped or None) for each property."""
    found = []
    for prop in chosen or properties(evidence.run):
        wrong = skipped = None
        try:
            wrong = prop(evidence)
        except Skip as skip:
            skipped = str(skip)
        except (TypeError, KeyError) as error:
            wrong = f"the evidence for it is missing ({error})"
        found.append((prop.__doc__, wrong, skipped))
    return found
