# SPDX-License-Identifier: GPL-2.0-only
"""Virtual machines, and the guest's line to us."""
from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu.qmp import ConnectError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

if TYPE_CHECKING:
    from .migration import Run, Setup

QEMU = "qemu-system-x86_64"
RAM_MIB = 128

# QEMU's own trace points that tell about the switchover; everything else comes
# from QMP and from the driver.
TRACE = ("loadvm_approve_switchover", "loadvm_approve_switchover_legacy",
         "source_return_path_thread_switchover_acked",
         "vfio_query_precopy_size", "vfio_query_precopy_size_request_switchover_ack",
         "vfio_state_pending_estimate", "vfio_save_complete_precopy_thread_start",
         "vfio_load_bufs_thread_end", "iommufd_backend_set_dirty",
         "iommufd_backend_get_dirty_bitmap")
UNKNOWN = "does not exist"      # what QEMU says of those that are not its own
# What QEMU says when KVM ended a processor of the guest, and it stands still from then on
GAVE_UP = re.compile(r"KVM internal error|error: kvm run failed")

# What tells a person how it goes
Say = Callable[[str], Any]

# A slower kernel (KASAN and friends) gets more time for everything.
patience = 1.0
# Nothing is judged by how long a wait may be: a busy machine is no fault.
LEAST_PATIENCE = 3


def limit(seconds: float) -> float:
    """How long to wait for what usually takes much less than that."""
    return seconds * max(patience, LEAST_PATIENCE)


@dataclass(frozen=True)
class Qemu:
    """One QEMU of several that are installed, and where its own data are."""
    program: str = QEMU
    data: tuple = ()

    @property
    def arguments(self) -> list[str]:
        return [self.program] + [word for folder in self.data for word in ("-L", folder)]

    def says(self, *arguments: Any) -> str:
        """All that it says when it is told to do something and end."""
        done = subprocess.run(self.arguments + list(arguments), capture_output=True, text=True,
                              timeout=limit(60), check=False)
        return done.stdout + done.stderr

    def version(self) -> str:
        """As in "10.0.13"."""
        return self.says("--version").split("version ", 1)[1].split()[0]


class Failure(Exception):
    """Something is not as it should be; the text is a sentence for the reader."""
    run: Run = None         # what was seen until then, if anything


class GuestLost(Failure):
    """The guest is not what it was, for a reason that has nothing to do with devices."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"the guest of QEMU ({name}) {how}")


def must_not_panic(name: str, console: str) -> None:
    """A guest that panics, because its memory is wrong for example, resets itself as well, but is not lost."""
    with open(console, errors="replace") as file:
        panic = re.search(r"Kernel panic.*|Oops.*|BUG: .*", file.read())
    if panic:
        raise Failure(f"the guest of QEMU ({name}) said: {panic[0].strip()}")


def emulated() -> bool:
    """Is this host a machine that QEMU emulates without KVM? Guests are lost there now and then."""
    with open("/proc/cpuinfo") as file:
        return "QEMU TCG" in file.read()


def despite_loss(act: Callable[[], Any], say: Say) -> Any:
    """act(), and once more if the guest was lost and the host is emulated."""
    try:
        return act()
    except GuestLost as failure:
        if not emulated():
            raise
        say(f"once more, because {failure}")
        return act()


class Deadline:
    """A point in time that waiting must not pass."""

    def __init__(self, seconds: float, what: str) -> None:
        self.what = what
        self.seconds = limit(seconds)
        self.end = time.monotonic() + self.seconds

    def left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failure(f"{self.what} took longer than {self.seconds:.0f} s")
        return left

    def nap(self, seconds: float = 0.02) -> None:
        time.sleep(min(seconds, self.left()))


class Guest:
    """
    What the program in the VM says on the second serial port.

    The VM has one such port, but two QEMU have an end of it: first the source,
    then the target.  A line may start on one and end on the other, so what comes
    is put together as if it were one port.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lines: list[tuple[int, str]] = []      # (monotonic ns, text), all but the beats
        self.beats: list[tuple[int, int]] = []      # (monotonic ns, iteration)
        self.rest = b""
        self.sockets: dict[str, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.closing = False
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def attach(self, machine: VM) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(machine.path("line"))
        self.sockets[machine.name] = sock
        self.selector.register(sock, selectors.EVENT_READ, sock)

    def close(self) -> None:
        self.closing = True
        self.thread.join()
        self.selector.close()
        for sock in self.sockets.values():
            sock.close()

    def hear_again(self) -> None:
        """A line that was cut off, and goes on elsewhere, begins in the middle of one."""
        with self.lock:
            self.rest = b""
            heard = len(self.beats)
        deadline = Deadline(60, "the guest's next beat")
        while len(self.beats) == heard:
            deadline.nap()

    def send(self, machine: VM, text: str) -> None:
        self.sockets[machine.name].sendall(text.encode() + b"\n")

    def _listen(self) -> None:
        while not self.closing:
            for key, _ in self.selector.select(0.1):
                self._take(self._receive(key.data))

    def _receive(self, sock: socket.socket) -> bytes:
        """Nothing when that QEMU has ended, however it did."""
        try:
            data = sock.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(sock)
        return data

    def _take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        with self.lock:
            *whole, self.rest = (self.rest + data).split(b"\n")
            for line in whole:
                self._take_line(now, line.decode(errors="replace").strip())

    def _take_line(self, now: int, text: str) -> None:
        if not text.startswith("BEAT "):
            self.lines.append((now, text))
        elif text[5:].isdigit():
            self.beats.append((now, int(text[5:])))

    def find(self, word: str, start: int = 0) -> dict[str, str]:
        """The first line from number start on that begins with word."""
        with self.lock:
            for _, text in self.lines[start:]:
                if text.startswith("FAIL "):
                    raise Failure(f"the guest's program gave up: {text[5:]}")
                if text.split(" ")[0] == word:
                    return dict(p.split("=", 1) for p in text.split(" ")[1:] if "=" in p)
        return None

    def bad_lines(self, start: int) -> list[str]:
        with self.lock:
            return [text for _, text in self.lines[start:] if text.startswith("BAD ")]

    def iterations(self, since: int = 0, until: int = None) -> int:
        """Page writes between two times, as far as the beats tell."""
        with self.lock:
            seen = [i for t, i in self.beats if t >= since and (not until or t <= until)]
        return seen[-1] - seen[0] if len(seen) > 1 else 0

    def first_beat(self, since: int) -> int:
        with self.lock:
            return next((t for t, _ in self.beats if t >= since), None)

    def longest_silence(self, since: int, until: int = None) -> int:
        """The longest time between two beats (ns), the second of them not after until."""
        with self.lock:
            times = [t for t, _ in self.beats]
        return max((b - a for a, b in zip(times, times[1:])
                    if b >= since and (not until or b <= until)), default=0)


class VM:
    """One QEMU process."""

    def __init__(self, name: str, bdf: str, folder: str, setup: Setup, incoming: bool = True) -> None:
        self.name = name
        self.bdf = bdf
        self.folder = folder
        self.setup = setup
        self.incoming = incoming
        self.process: subprocess.Popen = None
        self.qmp: QEMUMonitorProtocol = None
        self.events: list[dict[str, Any]] = []
        self.may_restart = False        # its guest, because somebody resets it

    def path(self, what: str) -> str:
        return os.path.join(self.folder, f"{self.name}.{what}")

    @property
    def side(self) -> str:
        """Where it was when it was started; it may have become a source since."""
        return next(side for side, bdf in self.setup.carrier.items() if bdf == self.bdf)

    def device_arguments(self) -> list[str]:
        found = ["-object", "iommufd,id=iommufd0"] if self.setup.iommufd else []
        if self.setup.on_a_port:
            found += ["-device", "pcie-root-port,id=port0"]
        for number, pair in enumerate(self.setup.pairs):
            device = (f"vfio-pci,id=dev{number},host={pair[self.side]},"
                      f"enable-migration={self.setup.migratable},migration-events=on"
                      + ",bus=port0" * self.setup.on_a_port + self.setup.device_options
                      + ",x-device-dirty-page-tracking=off" * self.setup.iommu_tracks
                      + ",x-pre-copy-dirty-page-tracking=off" * (not self.setup.dma_log))
            found += ["-device", device + ",iommufd=iommufd0" * self.setup.iommufd]
        return found

    def arguments(self) -> list[str]:
        setup = self.setup
        args = setup.qemu[self.side].arguments + [
                "-name", self.name + ",debug-threads=on", "-no-user-config", "-nodefaults",
                "-M", setup.machine, "-accel", setup.accel,
                "-cpu", setup.processor,
                "-m", str(RAM_MIB), "-smp", str(setup.cpus), "-display", "none",
                "-kernel", setup.kernel, "-initrd", setup.initrd,
                "-append", "console=ttyS0 panic=-1 quiet -- " + setup.guest_arguments,
                "-serial", "file:" + self.path("console"),
                "-chardev", f"socket,id=line,path={self.path('line')},server=on,wait=off",
                "-serial", "chardev:line",
                "-qmp", f"unix:{self.path('qmp')},server=on,wait=off",
                "-msg", "timestamp=on", "-D", self.path("trace")]
        for event in TRACE:
            args += ["-trace", event]
        if setup.shared_ram:
            args += ["-object", f"memory-backend-memfd,id=ram0,share=on,size={RAM_MIB}M",
                     "-machine", "memory-backend=ram0,aux-ram-share=on"]
        return args + self.incoming_arguments() + self.device_arguments()

    def incoming_arguments(self) -> list[str]:
        return ["-incoming", "defer"] if self.incoming else []

    def start(self) -> None:
        self.launch()
        self.reach()

    def launch(self) -> None:
        with open(self.path("stderr"), "wb") as err:
            self.process = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL,
                                            stdout=err, stderr=err)

    def reach(self) -> None:
        """Until its monitor answers."""
        deadline = Deadline(60, f"starting QEMU ({self.name})")
        while not self._connect():
            self.must_live()
            deadline.nap()
        self.qmp.settimeout(limit(60))

    def _connect(self) -> bool:
        if not os.path.exists(self.path("qmp")):
            return False
        self.qmp = QEMUMonitorProtocol(self.path("qmp"), nickname=self.name)
        try:
            self.qmp.connect()
        except (ConnectError, OSError):
            return False
        return True

    def must_live(self) -> None:
        """Its process, and its guest as far as KVM knows."""
        if self.process.poll() is not None:
            raise Failure(f"QEMU ({self.name}) ended with status {self.process.returncode}: "
                          + self.last_words())
        gave_up = [line for line in self.said() if GAVE_UP.match(line)]
        if gave_up:
            raise Failure(f"KVM does not run the guest of QEMU ({self.name}) any more: {gave_up[0]}")

    def plight(self) -> str:
        """Why its guest may be silent."""
        return (f"QEMU ({self.name}) is {self.cmd('query-status')['status']}, "
                f"{self.processors()}, and says: {self.last_words()}")

    def processors(self) -> str:
        """Where each of its processors is, and which of them wait for an interrupt."""
        said = self.monitor("info registers -a")
        where = re.findall(r"^RIP=(\w+)|HLT=(\d)", said, re.MULTILINE)
        return " ".join(("halted" if halted == "1" else "runs") if halted else f"RIP={rip}"
                        for rip, halted in where)

    def must_not_be_lost(self, failure: Failure) -> None:
        """Called after a failure: a page table beyond its memory is none of the guest's."""
        if not self.qmp or self.process.poll() is not None:
            return
        try:
            self.collect_events()
            found = re.search(r"CR3=([0-9a-f]+)", self.monitor("info registers"))
        except GuestLost:
            raise
        except (Failure, OSError):
            return
        if found and int(found[1], 16) >= RAM_MIB << 20:
            raise GuestLost(self.name, f"has a page table at {found[1]}, beyond its memory") from failure

    def monitor(self, line: str) -> str:
        """A command for people, where QMP has none."""
        return str(self.cmd("human-monitor-command", **{"command-line": line}))

    def said(self) -> list[str]:
        """The lines that are worth telling."""
        with open(self.path("stderr"), errors="replace") as err:
            return [line for line in err.read().split("\n") if line and UNKNOWN not in line]

    def last_words(self) -> str:
        return " / ".join(self.said()[-4:]).strip() or "it said nothing"

    def cmd(self, name: str, **arguments: Any) -> Any:
        try:
            return self.qmp.cmd(name, **arguments)
        except asyncio.TimeoutError as error:
            raise Failure(f"QEMU ({self.name}) did not answer {name}; its threads: "
                          + self.whereabouts()) from error
        except QMPError as error:
            self.must_live()
            raise Failure(f"QEMU ({self.name}) refused {name}: {error}") from error

    def whereabouts(self) -> str:
        """Where each of its threads sleeps in the kernel; 0 is nowhere."""
        found = []
        for task in sorted(glob.glob(f"/proc/{self.process.pid}/task/*")):
            with contextlib.suppress(OSError), open(task + "/comm") as comm, open(task + "/wchan") as wchan:
                found.append(f"{comm.read().strip()} in {wchan.read()}")
        return ", ".join(found)

    def collect_events(self) -> list[dict[str, Any]]:
        """Take what events there are; their times are QEMU's own."""
        self.must_live()
        new = self.qmp.get_events(wait=False)
        self.events += new
        for event in new:
            self.must_not_restart(event)
        return self.events

    def must_not_restart(self, event: dict[str, Any]) -> None:
        # SeaBIOS follows a reset by the owner with one of its own.
        if event["event"] == "RESET" and event["data"].get("guest") and not self.may_restart:
            must_not_panic(self.name, self.path("console"))
            raise GuestLost(self.name, "reset itself")

    def seen(self, name: str, **data: Any) -> dict[str, Any]:
        """The first event of that name whose data has these values."""
        for event in self.events:
            have = event.get("data", {})
            if event["event"] == name and all(have.get(k.replace("_", "-")) == v
                                              for k, v in data.items()):
                return event
        return None

    def count_logged(self, name: str) -> int:
        """How often one of QEMU's own trace points is in its log, which it still writes."""
        with open(self.path("trace"), errors="replace") as file:
            return file.read().count(name)

    def has_logged(self, name: str) -> bool:
        return self.count_logged(name) > 0

    def forget_events(self) -> None:
        self.collect_events()
        self.events = []

    def wait_event(self, deadline: Deadline, name: str, **data: Any) -> None:
        while not self.seen(name, **data):
            self.collect_events()
            deadline.nap()

    def quit(self) -> None:
        """End QEMU, if it is there: politely, then by its process id."""
        if self.process and self.process.returncode is None:
            self._end()
        # Python would close what is left when it ends, and wait for an answer.
        with contextlib.suppress(OSError, EOFError, QMPError, AttributeError):
            self.qmp.close()

    def _end(self) -> None:
        try:
            self.qmp.settimeout(5)
            self.qmp.cmd("quit")
            self.process.wait(limit(20))
        except (OSError, QMPError, AttributeError, asyncio.TimeoutError,
                subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
