# SPDX-License-Identifier: GPL-2.0-only
"""What an administrator does with a VM by means of two libvirtd, and what is seen of it."""
import os
import re
import subprocess
import time

from livemig import judge, migration, scene, trace, vm
from livemig.evidence import Evidence
from livemig.vm import Deadline, Failure, Guest, GuestLost

from hosts import DOMAIN, DRIVER, Host, driver_of, nodedev

MEMORY_MIB = 16
# What QEMU may take for granted (bytes a second) when the VM stands still anyway; else it
# goes by what it has just sent, which is nothing
AVAILABLE = 10 << 30
MAX_DOWNTIME_MS = 2_000_000     # the most that QEMU takes
ACKED = "source_return_path_thread_switchover_acked"


class Move:
    """What is seen of one of libvirt's migrations."""

    def __init__(self, source, target, guest, startup_ms):
        self.source, self.guest = source, guest
        self.said = []                  # what came before it
        source.tell_qemu("trace-event-set-state", name=ACKED, enable=True)
        self.log_lengths = {host: os.path.getsize(host.path("log")) for host in (source, target)}
        carrier = {"source": source.bdf, "target": target.bdf}
        setup = migration.Setup("", "", carrier, delay_ms=startup_ms)
        self.run = migration.Run(setup, target.folder, offset=trace.day_minus_mono(),
                                 started=time.monotonic_ns())
        self.evidence = Evidence(self.run)
        self.tracing = trace.DriverTrace()
        self.tracing.start()

    def over(self):
        self.tracing.stop()
        self.run.records = self.tracing.records(os.path.join(self.run.folder, "driver-trace"))
        self.run.log["source"] = trace.qemu_log(self.source.qemu_log(), self.run.offset)

    def wanted(self, host, capability):
        """What libvirt told QEMU of it there first; what comes later cleans up."""
        with open(host.path("log"), errors="replace") as log:
            log.seek(self.log_lengths[host])
            said = re.findall(f'"capability":"{capability}","state":(true|false)', log.read())
        if not said:
            raise Failure(f"libvirt did not say whether it wants {capability} ({host.name})")
        return said[0] == "true"

    def must_want(self, state):
        for host in self.log_lengths:
            for capability in ("return-path", "switchover-ack"):
                if self.wanted(host, capability) != state:
                    raise Failure(f"libvirt turned {capability} {'off' if state else 'on'} "
                                  f"({host.name})")

    def judge(self, *properties):
        for name, wrong, _ in judge.verdicts(self.evidence, properties):
            if wrong:
                raise Failure(f"it should be so that {name}, but: {wrong}")

    def times(self):
        """In ms; the stop and the silence are what a user would notice."""
        seen = self.evidence
        ready, stopped, running = (seen.startup("ready"), seen.stopped(),
                                   seen.arc("target", "RUNNING"))
        when = f"{abs(stopped - ready) / 1e6:.0f} ms {'after' if stopped > ready else 'before'}"
        return "; ".join(self.said + [
            f"the startup took {seen.startup_ns() / 1e6:.0f} ms, the VM stopped {when} its end",
            f"the device stood still {(running - stopped) / 1e6:.0f} ms, the guest was silent "
            f"{self.guest.longest_silence(self.run.started) / 1e6:.0f} ms"])


class Play:
    """One VM and two hosts. The VM is at source."""

    def __init__(self, option, folder):
        self.option = option            # pytest's
        self.in_use = option.in_use     # KiB of the device
        self.source, self.target = (Host(name, bdf, folder, name == "target")
                                    for name, bdf in scene.carriers().items())
        self.guest = None

    @property
    def hosts(self):
        return self.source, self.target

    # A VM comes

    def start(self):
        """A managed hostdev is bound to our driver when its domain starts."""
        host = self.source
        # The size of a device is known when its driver is.
        for other in self.hosts:
            other.virsh("nodedev-detach", nodedev(other.bdf))
        # No more than it takes: a check reads all of it, and what was read is in use.
        memory = max(MEMORY_MIB, 1 << (self.in_use >> 10).bit_length())
        scene.small((self.source.bdf, self.target.bdf), memory)
        host.write("domain.xml", host.domain_xml(self.option, self.in_use))
        host.virsh("define", host.path("domain.xml"))
        host.virsh("start", DOMAIN)
        if driver_of(host.bdf) != DRIVER:
            raise Failure(f"{host.bdf} is bound to {driver_of(host.bdf) or 'no driver'}")
        self.guest = Guest()
        self.attach(host)
        ready = self.wait_for("READY", 0, 90)
        return f"the guest uses {int(ready['used_pages']) * 4} KiB of the device"

    def start_anew(self, in_use, zips=False):
        """A new VM that uses so many KiB of its device; the old one ends."""
        # At both, since it may just have moved
        for host in self.hosts:
            host.try_virsh("destroy", DOMAIN)
            host.try_virsh("undefine", DOMAIN)
        if self.source.zips != zips:
            self.source, self.target = self.target, self.source
        if self.guest:
            self.guest.close()
        self.in_use = in_use
        for other in self.hosts:
            other.try_virsh("nodedev-detach", nodedev(other.bdf))
        return self.start()

    def attach(self, host):
        """The guest's line, which libvirt has made."""
        deadline = Deadline(60, f"the guest's line ({host.name})")
        while True:
            try:
                return self.guest.attach(host)
            except (FileNotFoundError, ConnectionRefusedError):     # not there, or not ready yet
                deadline.nap()

    def answer_later(self):
        """The guest's line ends with its QEMU; the next one makes it anew."""
        if os.path.exists(self.source.path("line")):
            os.unlink(self.source.path("line"))

    def attach_again(self):
        self.attach(self.source)
        self.guest.hear_again()

    # It moves

    def target_options(self):
        """Of virsh migrate; the VM has other devices there."""
        target = self.target
        target.write("domain.xml", target.domain_xml(self.option, self.in_use))
        if os.path.exists(target.path("line")):
            os.unlink(target.path("line"))      # of a VM that was there before
        return ("--live", "--persistent", "--undefinesource", "--xml", target.path("domain.xml"),
                "--persistent-xml", target.path("domain.xml"))

    def move(self, *how, before=lambda source: None):
        """
        virsh migrate, to a device that takes its time to start; returns the Move. What comes
        before it is done to the VM's host.
        """
        def act():
            before(self.source)
            try:
                return self.move_once(*how)
            except GuestLost:
                self.start_anew(self.in_use)
                raise

        said = []
        move = vm.despite_loss(act, said.append)
        move.said = said
        return move

    def move_once(self, *how):
        source, target = self.source, self.target
        self.mark()
        options = self.target_options()
        migration.turn_knob(target.bdf, "startup_delay_ms", self.option.startup)
        move = Move(source, target, self.guest, self.option.startup)
        process = subprocess.Popen(
            ["virsh", "-q", "-c", source.uri, "migrate", *options, *how, DOMAIN, target.uri],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # The line is there as soon as the target's QEMU is.
        while process.poll() is None and not os.path.exists(target.path("line")):
            time.sleep(0.05)
        if os.path.exists(target.path("line")):
            self.attach(target)
        _, err = process.communicate(timeout=vm.limit(100))
        move.over()
        migration.turn_knob(target.bdf, "startup_delay_ms", 0)
        # Also if a guest that is booting has moved
        source.collect_events()
        if process.returncode:
            raise Failure(f"virsh migrate: {err.strip()}")
        self.source, self.target = target, source
        return move

    def job(self):
        """What libvirt has kept of the last migration"""
        found = dict(re.findall(r"^(.+?):\s+(.+?)\s*$",
                                self.source.virsh("domjobinfo", DOMAIN, "--completed"), re.M))
        if found.get("Job type") != "Completed" or "Total downtime" not in found:
            raise Failure(f"it says {found}")
        return "; ".join(f"{name}: {value}" for name, value in found.items())

    # The device goes, and comes again

    def replug(self):
        """The running VM loses its device, and gets one again."""
        def act():
            try:
                return f"{self.detach()}; {self.give_back()}; {self.right()}"
            except GuestLost:
                self.start_anew(self.in_use)
                raise

        said = []
        return "; ".join([vm.despite_loss(act, said.append)] + said)

    def detach(self):
        """The guest is told before, since an access to a device that has gone would kill it."""
        host = self.source
        host.write("hostdev.xml", host.hostdev_xml())
        migration.ask_guest(self.guest, host, "leave", "LEFT")
        start, began = len(self.guest.lines), time.monotonic()
        host.virsh("detach-device", DOMAIN, host.path("hostdev.xml"), "--live")
        deadline = Deadline(60, "the device leaving the VM")
        while "<hostdev" in host.virsh("dumpxml", DOMAIN):
            host.collect_events()
            deadline.nap()
        self.wait_for("GONE", start)
        return f"detached in {time.monotonic() - began:.1f} s"

    def give_back(self):
        """The new device is empty, and the guest fills it."""
        host = self.source
        start, began = len(self.guest.lines), time.monotonic()
        host.virsh("attach-device", DOMAIN, host.path("hostdev.xml"), "--live")
        stray = self.wait_for("CAME", start)["stray"]
        if stray != "0":
            raise Failure(f"{stray} pages of the new device are not zero")
        self.wait_for("READY", start)
        return f"attached in {time.monotonic() - began:.1f} s"

    def wait_for(self, word, start, seconds=60):
        deadline = Deadline(seconds, f"the guest's {word}")
        while (said := self.guest.find(word, start)) is None:
            self.source.collect_events()
            deadline.nap()
        return said

    # Commands that stop the VM and then write all of its state

    def run(self, *words):
        """
        A virsh command that makes QEMU write its state, within a time far above what that
        needs: what can end ends then, and what cannot is told by QEMU's own figures.
        """
        host, began = self.source, time.monotonic()
        process = subprocess.Popen(["virsh", "-q", "-c", host.uri, *words],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said, _ = process.communicate(timeout=vm.limit(self.option.save_limit))
        except subprocess.TimeoutExpired as error:
            figures = host.figures()
            host.try_virsh("domjobabort", DOMAIN)
            process.communicate(timeout=vm.limit(60))
            raise Failure(f"virsh {words[0]} did not end in {time.monotonic() - began:.0f} s; "
                          f"query-migrate says {figures}") from error
        if process.returncode:
            raise Failure(f"virsh {words[0]}: {said.strip()}; {host.figures()}")
        return time.monotonic() - began

    def run_marked(self, *words):
        """The same; what the guest has written before and after is told apart."""
        self.mark()
        self.allow_switchover("bandwidth")
        return self.run(*words)

    def allow_switchover(self, way):
        """What QEMU has to be told before, since libvirt does not tell it."""
        host = self.source
        if self.option.unaided:
            return
        if way == "bandwidth":
            host.tell_qemu("migrate-set-parameters",
                           **{"avail-switchover-bandwidth": AVAILABLE})
        elif way == "downtime":
            host.virsh("migrate-setmaxdowntime", DOMAIN, str(MAX_DOWNTIME_MS))

    def image(self):
        """A file of this size is left to none of the next tests."""
        path = self.source.path("image")
        if os.path.exists(path):
            os.unlink(path)
        return path

    def restore(self, path):
        self.answer_later()
        self.source.virsh("restore", path)

    # What must be true

    def mark(self):
        migration.ask_guest(self.guest, self.source, "mark", "MARKED")

    def state_must_be(self, state):
        found = self.source.virsh("domstate", DOMAIN)
        if found != state:
            raise Failure(f"it is {found}, not {state}")

    def right(self):
        """The guest finds every byte right where it is."""
        self.state_must_be("running")
        said = migration.ask_guest(self.guest, self.source, "check", "RESULT")
        wrong = [f"{said[what]} {what}" for what in scene.GOOD if said[what] != "0"]
        if wrong or said["good"] != said["pages"] or said["since_mark"] == "0":
            raise Failure(f"{said['good']} of {said['pages']} pages are right, "
                          f"{said['since_mark']} written since; " + "; ".join(wrong))
        return f"{said['good']} pages, {said['since_mark']} written since"

    def end(self):
        if self.guest:
            self.guest.close()
        for host in self.hosts:
            host.end()
