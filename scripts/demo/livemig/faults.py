# SPDX-License-Identifier: GPL-2.0-only
"""
What may happen to a migration.

A fault is a function with one line of documentation, which names it.  It takes a
Scene with a running VM, and leaves scene.source as the QEMU that must have the guest
(None: nobody may have it), for the scene to judge.  It returns a sentence about what
was seen, or raises Failure.
"""
from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import migration
from .migration import device_attribute
from .proxy import Proxy
from .scene import ENDED
from .vm import Deadline, Failure

if TYPE_CHECKING:
    from .scene import Scene
    from .vm import VM

MINUTES_MS = 600000             # a startup that nobody waits for
EARLY_TRIES = 20
LATE_TRIES = 4                  # of up to half a minute each
ENDLESS = 5                     # seconds in which nothing comes that ever will
EARLY_MS = 2000                 # a downtime so long that the switchover comes early
LEFT = 400 << 10                # more than all buffers between source and target hold
READ = 1 << 20                  # what QEMU reads from the device at a time
ROUND = 0.1                     # seconds after which it looks at the downtime limit again


def say_so(said: str) -> str:
    """QEMU's words, as part of a sentence."""
    return said.strip().rstrip(".").replace("\n", "; ")


# Cancelling

def cancel(scene: Scene) -> None:
    scene.source.cmd("migrate_cancel")
    scene.must_end("cancelled")


def cancelled_in_setup(scene: Scene) -> str:
    """cancelled while it was being set up"""
    for number in range(EARLY_TRIES):
        target = scene.target()
        scene.begin(target)
        cancel(scene)
        scene.source.collect_events()
        active = scene.source.seen("MIGRATION", status="active")
        touched = scene.source.seen("VFIO_MIGRATION", device_state="pre-copy")
        scene.end(target)
        if not active:
            return (f"at try {number + 1}, the device "
                    + ("had entered PRE_COPY" if touched else "was not in it yet"))
    raise Failure(f"it was beyond setup in each of {EARLY_TRIES} tries")


def cancelled_in_precopy(scene: Scene) -> str:
    """cancelled amid the initial data, before any acknowledgment"""
    for _ in range(EARLY_TRIES):
        target = scene.target()
        scene.begin_slowly(target)
        scene.wait_in_use()
        seen = scene.phase(target)
        left = int(device_attribute(scene.source.bdf, "initial_bytes"))
        cancel(scene)
        if left and scene.acks() == scene.before["acks"]:
            return f"{seen}, {left} initial bytes left"
        scene.end(target)
    raise Failure(f"it was too late {EARLY_TRIES} times: {left} initial bytes were left ({seen})")


def barrier_reached(scene: Scene, target: VM) -> bool:
    """All initial data is out, and the target is kept from saying that it is ready."""
    return (device_attribute(target.bdf, "startup") == "starting"
            and device_attribute(scene.source.bdf, "initial_bytes") == "0")


def wait_barrier(scene: Scene) -> VM:
    """A migration that waits for the target's startup, which takes for ever."""
    target = scene.target()
    migration.turn_knob(target.bdf, "startup_delay_ms", MINUTES_MS)
    scene.begin(target)
    # Its main thread waits in write(), and will not answer any more.
    scene.deaf.add(target.name)
    scene.wait(lambda: barrier_reached(scene, target), "reaching the barrier")
    return target


def cancelled_waiting(scene: Scene) -> str:
    """cancelled while it waited for the target's acknowledgment"""
    target = wait_barrier(scene)
    seen = scene.phase(target)
    cancel(scene)
    if scene.acks() > scene.before["acks"]:
        raise Failure("there was an acknowledgment")
    return seen


def cancelled_after_ack(scene: Scene) -> str:
    """cancelled after the target's acknowledgment"""
    target = scene.target()
    scene.begin(target, downtime_limit=0)
    scene.wait_acked()
    seen = scene.phase(target)
    cancel(scene)
    return seen


def wait_switchover(scene: Scene) -> None:
    """The VM is stopped, and its device with it; the last of the data is still to come."""
    scene.wait(lambda: scene.status() in ("pre-switchover",) + ENDED, "the switchover")
    if scene.status() != "pre-switchover":
        raise Failure(f"the migration {scene.status()} instead of pausing; QEMU says: "
                      + scene.why())


def hold_before_switchover(scene: Scene, target: VM) -> None:
    scene.begin(target, pause=True, downtime_limit=EARLY_MS)
    wait_switchover(scene)


def much_is_left(scene: Scene) -> bool:
    """The guest has written enough, and the source has stopped reading the device."""
    if int(device_attribute(scene.source.bdf, "dirty_bytes")) < LEFT + 2 * READ:
        return False
    sent = scene.sent()
    time.sleep(3 * ROUND)
    return scene.sent() == sent


def hold_with_some_left(scene: Scene) -> tuple[VM, Proxy, int]:
    """
    After the acknowledgment only the downtime limit keeps QEMU from the switchover. The
    line is held until the guest has written enough; then QEMU may switch over. It ends
    its round, which has one read of the device, and another round if this one was too
    short to look at the limit.
    """
    target = scene.target()
    proxy = scene.line_to(target)
    scene.begin(target, proxy, pause=True, downtime_limit=0)
    scene.wait_acked()
    proxy.hold()
    scene.wait(lambda: much_is_left(scene), "the guest writing while the line is held", 300)
    scene.source.cmd("migrate-set-parameters", **{"downtime-limit": EARLY_MS})
    proxy.let_go()
    wait_switchover(scene)
    return target, proxy, migration.statistic(scene.source.bdf, "stop_copy_bytes")


def hold_with_much_left(scene: Scene) -> tuple[VM, Proxy, int]:
    """
    Held before the switchover when much of the device is left to be sent. On a busy
    machine QEMU may have time for a round that leaves little.
    """
    for _ in range(LATE_TRIES):
        target, proxy, left = hold_with_some_left(scene)
        if left >= LEFT:
            return target, proxy, left
        cancel(scene)
        scene.end(target)
    raise Failure(f"{LATE_TRIES} times little was left for after the switchover: {left} bytes")


def cancelled_switching_over(scene: Scene) -> str:
    """cancelled at the switchover, the VM being stopped"""
    target = scene.target()
    hold_before_switchover(scene, target)
    seen = scene.phase(target)
    cancel(scene)
    return seen


# There is no cancel after that: QEMU holds its big lock until all is sent, and its
# monitor does not answer. Only the line can break then, see line_cut_late().

# What the guest's owner may do meanwhile

def rebooted(scene: Scene) -> str:
    """the guest is reset amid pre-copy"""
    target = scene.target()
    scene.begin_slowly(target)
    scene.wait_in_use()
    start = len(scene.guest.lines)
    scene.source.may_restart = True
    scene.source.cmd("system_reset")
    scene.source.wait_event(Deadline(60, "the reset"), "RESET")
    scene.guest.forget_half_a_line()
    ended = scene.must_end("failed")
    scene.wait(lambda: scene.guest.find("READY", start) is not None, "the guest booting again", 90)
    return f"the migration {ended}: {say_so(scene.why())}"


def stop_and_continue(scene: Scene) -> str:
    """Returns the state that the device was in, in between."""
    scene.source.cmd("stop")
    stopped = device_attribute(scene.source.bdf, "migration_state")
    scene.source.cmd("cont")
    # From here on nothing makes what is left less, so let it all be sent in the end.
    scene.source.cmd("migrate-set-parameters", **{"max-bandwidth": migration.FAST,
                                                  "downtime-limit": EARLY_MS})
    return stopped


def stopped_and_continued(scene: Scene) -> str:
    """the VM is stopped and goes on amid the initial data: only a cancel ends that"""
    target = scene.target()
    scene.begin_slowly(target)
    scene.wait_in_use()
    stopped = stop_and_continue(scene)
    # QEMU does not go back to PRE_COPY, and the target's word never comes.
    end = time.monotonic() + ENDLESS
    while scene.status() not in ENDED and time.monotonic() < end:
        time.sleep(0.1)
    scene.source.cmd("migrate_cancel")          # of nothing, if it has ended
    ended = scene.end_of(target)
    return f"stopped, the device was in {stopped}; the migration {ended}"


def stopped_and_continued_later(scene: Scene) -> str:
    """the VM is stopped and goes on after the acknowledgment"""
    target = scene.target()
    scene.begin(target, downtime_limit=0)
    scene.wait_acked()
    stopped = stop_and_continue(scene)
    ended = scene.end_of(target)
    return (f"stopped, the device was in {stopped}; the migration {ended}"
            + (f": {say_so(scene.why())}" if ended == "failed" else ""))


def migrated_while_stopped(scene: Scene) -> str:
    """the VM is stopped amid pre-copy, and goes on at the target"""
    target = scene.target()
    scene.begin_slowly(target)
    scene.wait_in_use()
    scene.source.cmd("stop")
    scene.source.cmd("migrate-set-parameters", **{"max-bandwidth": migration.FAST,
                                                  "downtime-limit": migration.DOWNTIME_MS})
    ended = scene.end_of(target)
    scene.source.cmd("cont")
    return f"the migration {ended}" + (f": {say_so(scene.why())}" if ended == "failed" else "")


# QEMU that die

def wait_resuming(scene: Scene, target: VM) -> None:
    def loading() -> bool:
        return (device_attribute(target.bdf, "migration_state") == "RESUMING"
                and device_attribute(target.bdf, "startup") != "waiting")
    scene.wait(loading, "data arriving at the target")


def migrate_after_all(scene: Scene) -> None:
    """What everybody wants."""
    target = scene.target()
    scene.begin(target)
    scene.must_end("completed")
    scene.moved(target)


def target_killed(scene: Scene) -> str:
    """the target is killed while its device loads; another takes the device, and all"""
    target = scene.target()
    scene.begin_slowly(target)
    wait_resuming(scene, target)
    seen = scene.phase(target)
    scene.kill(target)
    scene.must_end("failed")
    wrong = scene.one_side() or scene.all_right()
    if wrong:
        raise Failure(f"after the target was killed: {wrong}")
    migrate_after_all(scene)
    return seen


def target_killed_waiting(scene: Scene) -> str:
    """the target is killed while it waits for its startup; another one takes over"""
    target = wait_barrier(scene)
    began = time.monotonic()
    scene.kill(target)
    took = time.monotonic() - began
    scene.must_end("failed")
    scene.calm(target.bdf)
    migrate_after_all(scene)
    return f"its write() ended within {took:.1f} s"


def device_refuses(scene: Scene) -> str:
    """the target's device fails amid its load; another attempt succeeds"""
    target = scene.target()
    migration.turn_knob(target.bdf, "fail_load_at", random.Random(scene.seed).randrange(1, 4 << 20))
    scene.begin(target)
    scene.must_end("failed")
    said = target.cmd("query-migrate").get("error-desc", "nothing")
    scene.calm(target.bdf)
    scene.end(target)
    migrate_after_all(scene)
    return f"the target said: {say_so(said)}"


def source_killed(scene: Scene) -> str:
    """the source is killed amid pre-copy: the target fails, and the guest is gone"""
    target = scene.target()
    scene.begin_slowly(target)
    wait_resuming(scene, target)
    seen = scene.phase(target)
    scene.kill(scene.source)
    scene.source = None
    deadline = Deadline(60, "the target failing")
    while scene.status(target) != "failed":
        target.must_live()
        deadline.nap()
    return f"{seen}; the target said: " + say_so(target.cmd("query-migrate").get("error-desc", ""))


def source_killed_switching_over(scene: Scene) -> str:
    """the source is killed around the switchover: the guest lives at the target, or nowhere"""
    target = scene.target()
    hold_before_switchover(scene, target)
    late = random.Random(scene.seed).random() * 0.4
    scene.source.cmd("migrate-continue", state="pre-switchover")
    time.sleep(late)
    scene.kill(scene.source)
    scene.source = None
    deadline = Deadline(60, "the target knowing what has become of it")
    while scene.status(target) not in ("failed", "completed"):
        target.must_live()
        deadline.nap()
    if scene.status(target) == "completed":
        scene.source = target
    return f"{late * 1000:.0f} ms after it went on; the target: {scene.status(target)}"


# Lines that break

def plain(scene: Scene) -> str:
    """nothing happens"""
    target = scene.target()
    proxy = scene.line_to(target)
    scene.begin(target, proxy)
    scene.must_end("completed")
    scene.moved(target)
    scene.length = proxy.passed
    return f"{scene.length} bytes"


def at_random(scene: Scene, what: Callable[[Proxy, VM], Any]) -> tuple[VM, int, list[str]]:
    """Let something happen at a random byte of the stream."""
    # Not each stream is as long as the last, and none may be over by then.
    at = random.Random(scene.seed).randrange(1, (scene.length or 32 << 20) // 2)
    target = scene.target()
    seen = []

    def act(proxy: Proxy) -> None:
        seen.append(scene.phase(target))
        what(proxy, target)

    scene.begin(target, scene.line_to(target, at, act))
    return target, at, seen


def line_cut(scene: Scene) -> str:
    """the line is cut at a random byte"""
    target, at, seen = at_random(scene, lambda proxy, target: proxy.cut())
    ended = scene.end_of(target)
    where = seen[0] if seen else "not so many bytes"
    return f"byte {at}: {where}; the migration {ended}: {say_so(scene.why())}"


def line_cut_late(scene: Scene) -> str:
    """the line is cut at a random byte after the switchover"""
    target, proxy, left = hold_with_much_left(scene)
    proxy.action = Proxy.cut
    proxy.at = proxy.passed + random.Random(scene.seed).randrange(1, left)
    seen = scene.phase(target)
    scene.source.cmd("migrate-continue", state="pre-switchover")
    scene.must_end("failed")
    return f"byte {proxy.at}, {left} were left: {seen}; {say_so(scene.why())}"


def target_killed_at_random(scene: Scene) -> str:
    """the target is killed at a random byte"""
    target, at, seen = at_random(scene, lambda proxy, target: target.process.kill())
    ended = scene.wait_ended()
    if ended == "completed":
        raise Failure(f"there were not {at} bytes; the guest died with the target")
    scene.kill(target)
    return f"byte {at}: {seen[0] if seen else 'not so many'}; the migration {ended}"


def source_killed_at_random(scene: Scene) -> str:
    """the source is killed at a random byte: the target fails, and the guest is gone"""
    victim = scene.source
    target, at, seen = at_random(scene, lambda proxy, target: victim.process.kill())
    deadline = Deadline(120, "the target knowing what has become of it")
    while scene.status(target) not in ("failed", "completed"):
        target.must_live()
        deadline.nap()
    scene.kill(victim)
    scene.source = target if scene.status(target) == "completed" else None
    return f"byte {at}: {seen[0] if seen else 'not so many'}; the target: {scene.status(target)}"


# Files

def plain_capabilities(machine: VM, *more: str) -> None:
    """What a file cannot do: answer."""
    machine.cmd("migrate-set-capabilities", capabilities=[
        {"capability": name, "state": name == "events"} for name in migration.CAPABILITIES]
        + [{"capability": name, "state": True} for name in more])


def plain_parameters(scene: Scene, **more: Any) -> None:
    scene.source.cmd("migrate-set-parameters", **{
        "downtime-limit": scene.setup.downtime_limit_ms, "max-bandwidth": migration.FAST,
        "avail-switchover-bandwidth": migration.BANDWIDTH, **more})


def must_load(scene: Scene, target: VM) -> None:
    """What the target was told to load brings it the guest."""
    deadline = Deadline(60, "loading")
    while scene.status(target) not in ("completed", "failed"):
        target.must_live()
        deadline.nap()
    scene.source = target
    if scene.status() == "failed":
        raise Failure(f"QEMU says: {scene.why()}")
    scene.moved(target)


def by_file(scene: Scene, kept: Callable[[str], str], loaded: Callable[[str], str], *capabilities: str) -> str:
    """Out into a file, and in from it, by such addresses."""
    path = os.path.join(scene.folder, f"{scene.source.name}.saved")
    plain_capabilities(scene.source, *capabilities)
    plain_parameters(scene)
    scene.source.cmd("migrate", uri=kept(path))
    scene.must_end("completed")
    size = os.path.getsize(path)
    target = scene.target()
    scene.end(scene.source)
    plain_capabilities(target, *capabilities)
    target.cmd("migrate-incoming", **{"uri": loaded(path), "exit-on-error": False})
    must_load(scene, target)
    os.unlink(path)
    return f"{size} bytes"


def through_a_file(scene: Scene) -> str:
    """to a file, and from the file to another QEMU"""
    return by_file(scene, "file:{}".format, "file:{}".format)


def job(machine: VM, name: str, **arguments: Any) -> str:
    """Run one of QEMU's jobs to its end; returns what it complains about."""
    machine.cmd(name, **{"job-id": "job0"}, **arguments)
    deadline = Deadline(120, name)
    while True:
        found = next(j for j in machine.cmd("query-jobs") if j["id"] == "job0")
        if found["status"] == "concluded":
            machine.cmd("job-dismiss", id="job0")
            return found.get("error")
        deadline.nap()


def snapshot_disk(machine: VM) -> None:
    """A disk that can hold snapshots."""
    path = machine.path("qcow2")
    with open(path, "wb"):
        pass
    machine.cmd("blockdev-add", **{"driver": "file", "filename": path, "node-name": "disk0file"})
    wrong = job(machine, "blockdev-create", options={
        "driver": "qcow2", "file": "disk0file", "size": 1 << 20})
    if wrong:
        raise Failure(f"cannot make a disk for snapshots: {wrong}")
    machine.cmd("blockdev-add", **{"driver": "qcow2", "file": "disk0file", "node-name": "disk0"})


def snapshot(scene: Scene) -> str:
    """savevm, and loadvm a while later"""
    machine = scene.source
    plain_capabilities(machine)
    snapshot_disk(machine)
    where = {"tag": "s0", "vmstate": "disk0", "devices": ["disk0"]}
    refused = job(machine, "snapshot-save", **where)
    if refused:
        return f"QEMU refuses savevm: {say_so(refused)}"
    wrong = scene.one_side() or scene.all_right()
    if wrong:
        raise Failure(f"after savevm: {wrong}")
    machine.cmd("stop")
    refused = job(machine, "snapshot-load", **where)
    scene.guest.forget_half_a_line()
    machine.cmd("cont")
    scene.mark()
    marked = time.monotonic_ns()
    scene.wait(lambda: scene.guest.iterations(marked), "the guest going on")
    return f"QEMU refuses loadvm: {say_so(refused)}" if refused else "both done"


SHORT = (cancelled_waiting, cancelled_switching_over, target_killed, line_cut, line_cut_late,
         rebooted, source_killed)
ALL = (plain, cancelled_in_setup, cancelled_in_precopy, cancelled_waiting, cancelled_after_ack,
       cancelled_switching_over, rebooted, stopped_and_continued,
       stopped_and_continued_later, migrated_while_stopped, target_killed, target_killed_waiting,
       device_refuses, through_a_file, snapshot, line_cut, line_cut_late, target_killed_at_random,
       source_killed, source_killed_switching_over, source_killed_at_random)
RANDOM = (line_cut, line_cut_late, target_killed_at_random, source_killed_at_random, device_refuses)
