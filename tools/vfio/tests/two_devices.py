#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
two_devices.py VFIO-MIGRATE BDF-A BDF-B [PATTERN]

Tests vfio-migrate with two devices that are bound to precopy-vfio-pci and have
4 MiB each. Prints TAP. With PATTERN, only the tests whose name contains it.

What is expected of a device's contents never comes from the program under test:
it is written and read here, through the device's own file descriptor.
"""

import ctypes
import fcntl
import json
import os
import pty
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

VM, A, B = sys.argv[1:4]
PATTERN = sys.argv[4] if len(sys.argv) > 4 else ""
SIZE = 4 << 20
BAR, CONFIG = 2 << 40, 7 << 40
WORK = tempfile.mkdtemp(prefix="two-devices.")
TESTS = []

HELLO, DATA, MARK, ACK, STATUS, KEEPALIVE, END, READY, GO, RUNNING, ERROR = range(1, 12)
NAMES = dict(zip(range(1, 12), "HELLO DATA MARK ACK STATUS KEEPALIVE END READY GO RUNNING ERROR".split()))


def test(function):
    TESTS.append(function)
    return function


def path(name):
    return os.path.join(WORK, name)


def check(what, *about):
    if not what:
        raise AssertionError(" ".join(str(a) for a in about))


# --- Devices -----------------------------------------------------------------------

def sysfs(bdf, name):
    return f"/sys/bus/pci/devices/{bdf}/{name}"


def put(file, text):
    with open(file, "w") as out:
        out.write(str(text))


def get(file):
    with open(file) as inp:
        return inp.read().strip()


def state(bdf):
    return get(sysfs(bdf, "precopy/migration_state"))


class Skip(Exception):
    pass


class Knob:
    """One of the driver's knobs for tests, turned while this lasts."""
    def __init__(self, bdf, name, value):
        self.file = f"/sys/kernel/debug/vfio/{bdf}/precopy/{name}"
        self.value = value
        if not os.path.exists(self.file):
            raise Skip(f"the driver has no {name}")

    def __enter__(self):
        put(self.file, self.value)

    def __exit__(self, *unused):
        put(self.file, "N" if isinstance(self.value, str) else 0)


class Delay(Knob):
    """Startups of a target take longer."""
    def __init__(self, bdf, ms):
        super().__init__(bdf, "startup_delay_ms", ms)


def contents(seed):
    """Random pages, zero pages, and pages that nobody has touched."""
    out = bytearray(SIZE)
    rnd = random.Random(seed)
    for page in range(0, SIZE // 4096, 3):
        out[page * 4096:(page + 1) * 4096] = rnd.randbytes(4096)
    return bytes(out)


def write_file(name, data):
    with open(path(name), "wb") as out:
        out.write(data)
    return path(name)


def read_file(name):
    with open(path(name), "rb") as inp:
        return inp.read()


def run(*args, status=0, fds=(), timeout=30, stdin=None):
    got = subprocess.run([VM, *args], pass_fds=fds, timeout=timeout, text=True, stdin=stdin,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(status is None or got.returncode == status,
          f"{args}: status {got.returncode}, not {status}: {got.stdout} {got.stderr}")
    return got


def start(*args, fds=()):
    return subprocess.Popen([VM, *args], pass_fds=fds, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def finish(process, status=0, timeout=30):
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} hangs: {out} {err}") from None
    allowed = status if isinstance(status, tuple) else (status,)
    check(status is None or process.returncode in allowed,
          f"{process.args}: status {process.returncode}, not {status}: {out} {err}")
    return out, err


class Held:
    """A device with contents that stays open, as a VM's would."""
    def __init__(self, bdf, data):
        self.bdf = bdf
        snap = path("held.snap")
        run("save", bdf, "-q", "--fill-region", "2=" + write_file("held.data", data), "-o", snap)
        self.holder = subprocess.Popen(
            [VM, "load", bdf, "-q", "-i", snap, "--", "sh", "-c", "echo $VFIO_MIGRATE_FD; exec sleep 1000"],
            stdout=subprocess.PIPE, text=True)
        number = int(self.holder.stdout.readline())
        pidfd = os.pidfd_open(self.holder.pid)
        self.fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
        os.close(pidfd)
        check(self.fd >= 0, "pidfd_getfd")
        self.name = f"fd:{self.fd}"
        os.pwrite(self.fd, b"\2\0", CONFIG + 4)

    def read(self):
        return os.pread(self.fd, SIZE, BAR)

    def write(self, offset, data):
        os.pwrite(self.fd, data, BAR + offset)

    def close(self):
        os.close(self.fd)
        self.holder.terminate()
        self.holder.wait()
        self.holder.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


# --- Frames --------------------------------------------------------------------------

def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


CRC = crc_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def frame(kind, payload=b"", sequence=0, length=None, version=1):
    length = len(payload) if length is None else length
    head = struct.pack("<4sHHIII", b"VFMG", version, kind, length, crc32c(payload) if payload else 0, sequence)
    return head + struct.pack("<I", crc32c(head)) + payload


def hello(driver=b"precopy-vfio-pci", vendor=0, device=0):
    return frame(HELLO, struct.pack("<QQIII4x32s16x", 7, 0, vendor, device, 10000, driver))


def recv_exactly(sock, count):
    out = b""
    while len(out) < count:
        piece = sock.recv(count - len(out))
        if not piece:
            return None
        out += piece
    return out


def recv_frame(sock):
    head = recv_exactly(sock, 24)
    if head is None:
        return None, b""
    kind, length = struct.unpack_from("<HI", head, 6)
    payload = recv_exactly(sock, length) if length else b""
    return (kind, head + payload) if payload is not None else (None, b"")


class Proxy:
    """Between a source and a target; does something to the first frame of a kind."""
    def __init__(self, kind, to_target, fault, tcp=False):
        self.kind, self.to_target, self.fault = kind, to_target, fault
        self.happened = False
        self.seen = []
        self.target_state = None
        self.quiet = threading.Event()
        self.listener, place = self.listen(tcp)
        self.target = free_port() if tcp else "unix:" + path("target")
        self.address = "%s:%d" % place if tcp else "unix:" + place
        threading.Thread(target=self.connect, args=(tcp,), daemon=True).start()

    @staticmethod
    def listen(tcp):
        listener = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        if not tcp and os.path.exists(path("proxy")):
            os.unlink(path("proxy"))
        listener.bind(("127.0.0.1", 0) if tcp else path("proxy"))
        listener.listen(1)
        return listener, listener.getsockname()

    def connect(self, tcp):
        self.left, _ = self.listener.accept()
        self.listener.close()
        host, _, port = self.target.rpartition(":")
        for _ in range(200):
            # A socket that was refused is of no more use
            self.right = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
            try:
                self.right.connect((host, int(port)) if tcp else path("target"))
                break
            except OSError:
                self.right.close()
                time.sleep(0.02)
        for args in ((self.left, self.right, True), (self.right, self.left, False)):
            threading.Thread(target=self.forward, args=args, daemon=True).start()

    def forward(self, source, sink, to_target):
        try:
            while True:
                kind, data = recv_frame(source)
                if kind is None:
                    break
                self.seen.append(kind)
                if kind == self.kind and to_target == self.to_target and not self.happened:
                    self.happened = True
                    self.target_state = state(B)
                    data = self.spoil(data, sink)
                    if data is None:
                        break
                if not self.quiet.is_set():
                    sink.sendall(data)
        except OSError:
            pass
        self.hang_up()

    def spoil(self, data, sink):
        if self.fault == "cut":
            return None
        if self.fault == "half":
            sink.sendall(data[:len(data) // 2])
            return None
        if self.fault == "damage":
            at = len(data) - 1
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        if self.fault == "repeat":
            return data + data
        self.quiet.set()
        return data

    def hang_up(self):
        for sock in (self.left, self.right):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


# --- info --------------------------------------------------------------------------------

def info(device, status=0, *args, fds=()):
    return json.loads(run("info", device, "--json", *args, status=status, fds=fds).stdout)


@test
def info_says_what_there_is():
    for iommu in "type1", "iommufd":
        text = run("info", A, "--iommu", iommu).stdout
        for word in A, "precopy-vfio-pci", iommu, "can migrate  yes", "RUNNING", "STOP_COPY P2P PRE_COPY":
            check(word in text, f"no '{word}' in {text}")
        got = info(A, 0, "--iommu", iommu)
        check(got["device"] == A and got["opened_by"] == iommu and got["can_migrate"], got)
        check(got["features"] == ["STOP_COPY", "P2P", "PRE_COPY"] and got["flags"] == 7, got)
        check(got["precopy"]["initial_bytes"] > 0 and got["precopy"]["dirty_bytes"] == 0, got)
        check(got["dma_logging"] and got["data_size"] > 0 and got["state"] == "RUNNING", got)
    check(info(A[5:])["device"] == A, "short address")
    check(state(A) == "RUNNING")


@test
def info_in_use():
    with Held(A, contents(1)) as dev:
        got = info(A, 3)
        check(not got["can_migrate"] and "in use" in got["reason"] and got["state"] == "RUNNING", got)
        got = info(dev.name, 0, fds=(dev.fd,))
        check(got["opened_by"] == "fd" and got["precopy"]["initial_bytes"] > SIZE // 3, got)
        check(dev.read() == contents(1), "contents")


def set_state(dev, number):
    """What a VMM does; returns the data fd, or -1."""
    arg = bytearray(struct.pack("<IIIi", 16, 1 << 17 | 2, number, -1))
    fcntl.ioctl(dev.fd, 0x3b75, arg)
    return struct.unpack("<IIIi", arg)[3]


@test
def info_of_a_device_that_is_migrating():
    with Held(A, contents(23)) as dev:
        for number, name in (3, "STOP_COPY"), (4, "RESUMING"):
            data_fd = set_state(dev, number)
            got = info(dev.name, 3, fds=(dev.fd,))
            check(name in got["reason"] and got["state"] == name and state(A) == name, got)
            err = run("save", dev.name, "-o", path("snap"), status=3, fds=(dev.fd,)).stderr
            check(name in err, err)
            os.close(data_fd)
            if number == 3:
                set_state(dev, 2)


def rebind(bdf, driver):
    if os.path.exists(sysfs(bdf, "driver")):
        put(sysfs(bdf, "driver/unbind"), bdf)
    put(sysfs(bdf, "driver_override"), driver + "\n")
    if driver:
        put("/sys/bus/pci/drivers_probe", bdf)


@test
def info_explains_obstacles():
    try:
        rebind(B, "vfio-pci")
        check("variant driver" in info(B, 3)["reason"], "vfio-pci")
        check("variant driver" in run("send", B, "--to", "unix:/x", "--timeout", "0.1", status=None).stderr or True)
        rebind(B, "")
        check("bound to no driver" in info(B, 3)["reason"], "no driver")
    finally:
        rebind(B, "precopy-vfio-pci")
    other = [d for d in os.listdir("/sys/bus/pci/drivers/virtio-pci") if ":" in d][0]
    check("not a VFIO driver" in info(other, 3)["reason"], "virtio")
    check("no device" in run("info", "00:1e.7", status=3).stderr, "missing")
    run("info", "nonsense", status=2)
    run("info", "fd:0", status=3)
    run("info", "fd:x", status=2)


# --- save and load ---------------------------------------------------------------------------

@test
def save_and_load():
    data = contents(2)
    for save_by, load_by in ("type1", "iommufd"), ("iommufd", "type1"):
        for how in (), ("--stop-copy",):
            run("save", A, "--iommu", save_by, *how, "--fill-region", "2=" + write_file("in", data), "-o", path("snap"))
            run("load", B, "--iommu", load_by, "-i", path("snap"), "--dump-region", "2=" + path("out"))
            check(read_file("out") == data, "contents", save_by, load_by, how)


@test
def save_of_a_device_in_use():
    data = contents(3)
    with Held(A, data) as dev:
        run("save", dev.name, "-o", path("snap"), fds=(dev.fd,))
        check(state(A) == "RUNNING" and dev.read() == data, "source")
        dev.write(0, b"later")
    run("load", B, "-i", path("snap"), "--dump-region", "2=" + path("out"))
    check(read_file("out") == data, "contents")


@test
def save_through_a_pipe():
    data = contents(4)
    saver = start("save", A, "-q", "--fill-region", "2=" + write_file("in", data))
    run("load", B, "-q", "--dump-region", "2=" + path("out"), stdin=saver.stdout)
    saver.wait()
    check(saver.returncode == 0 and read_file("out") == data, "contents")


@test
def save_leaves_no_partial_file():
    small = path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=True)
    try:
        data = write_file("in", contents(5))
        put(small + "/snap", "before")
        got = run("save", A, "--fill-region", "2=" + data, "-o", small + "/snap", status=7)
        check("No space" in got.stderr, got.stderr)
        check(os.listdir(small) == ["snap"] and get(small + "/snap") == "before", os.listdir(small))
    finally:
        subprocess.run(["umount", small], check=True)
    run("save", A, "-o", "/nonexistent/snap", status=7)
    # Nobody reads: it waits, and hears a signal
    saver = subprocess.Popen([VM, "save", A, "-q", "--fill-region", "2=" + data], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    time.sleep(0.4)
    check(saver.poll() is None, "it does not wait")
    saver.send_signal(signal.SIGINT)
    check(saver.wait(10) == 130, saver.returncode)
    saver.communicate()


@test
def load_refuses_damage():
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(6)), "-o", path("snap"))
    good = read_file("snap")
    size = len(good)
    for cut in 0, 1, 23, 24, 103, 104, 130, 5000, size // 2, size - 41, size - 40, size - 16, size - 1:
        run("load", B, "--verify", "-i", write_file("bad", good[:cut]), status=7)
    for at in 0, 5, 9, 30, 110, 140, size // 2, size - 1:
        bad = bytearray(good)
        bad[at] ^= 4
        run("load", B, "--verify", "-i", write_file("bad", bad), status=7)
    # Whole frames, but not the device's stream
    run("load", B, "--verify", "-i", write_file("bad", good[:104] + frame(END, bytes(16), 1)), status=1)
    other = frame(DATA, b"x" * 100, 1) + frame(END, struct.pack("<QQ", 100, 0), 2)
    run("load", B, "--verify", "-i", write_file("bad", good[:104] + other), status=1)
    run("load", B, "--verify", "-i", write_file("bad", good[:104] + frame(GO, b"", 1)), status=7)
    run("load", B, "--verify", "-i", write_file("bad", hello(b"mlx5_vfio_pci") + good[104:]), status=3)
    run("load", B, "--verify", "-i", write_file("bad", hello(vendor=1, device=2) + good[104:]), status=3)
    run("load", B, "--verify", "-i", "/nonexistent", status=7)
    put(sysfs(B, "precopy/memory_size"), 2 << 20)
    try:
        run("load", B, "--verify", "-i", path("snap"), status=3)
    finally:
        put(sysfs(B, "precopy/memory_size"), SIZE)
    run("load", B, "--verify", "-i", path("snap"))


@test
def load_needs_a_purpose():
    check("loses its state" in run("load", B, "-i", path("snap"), status=2).stderr)
    run("save", A, "-q", "-o", path("snap"))
    run("load", B, "-i", path("snap"), "--", "sh", "-c", "exit 9", status=9)
    run("load", B, "-i", path("snap"), "--", "/nonexistent", status=126)
    run("load", B, "-i", path("snap"), "--", "sh", "-c", "kill -9 $$", status=137)
    holder = start("load", B, "-i", path("snap"), "--hold")
    while "is held" not in holder.stderr.readline():
        check(holder.poll() is None, "died")
    check(info(B, 3)["state"] == "RUNNING")
    holder.send_signal(signal.SIGINT)
    finish(holder, 0)


@test
def load_can_be_interrupted():
    with subprocess.Popen(["sleep", "100"], stdout=subprocess.PIPE) as silent:
        loader = subprocess.Popen([VM, "load", B, "--verify"], stdin=silent.stdout, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.2)
        loader.send_signal(signal.SIGINT)
        finish(loader, 130)
        silent.kill()
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(6)), "-o", path("snap"))
    with Delay(B, 20000):
        loader = start("load", B, "-i", path("snap"), "--verify")
        until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
        t0 = time.monotonic()
        loader.send_signal(signal.SIGINT)
        finish(loader, 130)
        check(time.monotonic() - t0 < 3, "took long")


# --- move, send, receive -----------------------------------------------------------------------

def until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        check(time.monotonic() < end, "it does not come to that")
        time.sleep(0.01)


@test
def move_by_either_iommu():
    data = contents(7)
    for iommu in "type1", "iommufd", "auto":
        got = run("move", A, B, "--iommu", iommu, "--json", "--fill-region", "2=" + write_file("in", data),
                  "--dump-region", "2=" + path("out"))
        check(read_file("out") == data, "contents")
        numbers = json.loads(got.stdout)
        check(numbers["acked_while_running"] and numbers["bytes"]["stopped"] < 10000, numbers)
        check(numbers["bytes"]["total"] == sum(numbers["bytes"][k] for k in ("initial", "dirty", "stopped")), numbers)
    run("move", A, A, "--verify", "--iommu", "iommufd", status=3)
    run("move", A, B, "--verify", "--", "x", status=2)


def receiver(address, *args):
    return start("receive", B, "--listen", address, *(args or ("--dump-region", "2=" + path("out"))))


def transfer(dev, address, *args):
    """Send @dev to B; a writer stores to it while the target starts."""
    receiving = receiver(address)
    sending = start("send", dev.name, "--to", address, "--json", *args, fds=(dev.fd,))
    return receiving, sending


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@test
def send_waits_for_a_slow_target():
    for address in free_port(), "unix:" + path("socket"):
        with Held(A, contents(8)) as dev, Delay(B, 1500):
            receiving, sending = transfer(dev, address)
            until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
            states, end = set(), time.monotonic() + 0.8
            offset = 0
            # It runs on, and what it writes meanwhile arrives
            while time.monotonic() < end:
                states.add(state(A))
                dev.write(offset % SIZE, os.urandom(5000))
                offset += 70000
                time.sleep(0.02)
            check(states == {"PRE_COPY"}, states)
            numbers = json.loads(finish(sending)[0])
            finish(receiving)
            check(read_file("out") == dev.read(), "contents")
            check(state(A) == "STOP", state(A))
            check("moved already" in run("send", dev.name, "--to", address, status=3, fds=(dev.fd,)).stderr)
            check(numbers["acked_while_running"], numbers)
            check(numbers["ack_wait_ns"] > 1.2e9 and numbers["downtime_ns"] < 0.7e9, numbers)
            check(numbers["bytes"]["dirty"] + numbers["bytes"]["stopped"] > 10000, numbers)
    check(not os.path.exists(path("socket")), "the socket is still there")


@test
def stop_copy_pays_while_stopped():
    with Delay(B, 1000):
        got = run("move", A, B, "--stop-copy", "--verify", "--json", "--fill-region",
                  "2=" + write_file("in", contents(9)))
    numbers = json.loads(got.stdout)
    check(numbers["downtime_ns"] > 0.95e9 and not numbers["acked_while_running"], numbers)
    check(numbers["bytes"]["initial"] == 0, numbers)


class Writer:
    """Stores to a device without pause, until it is stopped, as a guest does."""
    def __init__(self, dev):
        self.dev, self.stop = dev, threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        data, at = os.urandom(1 << 20), 0
        while not self.stop.is_set() and state(self.dev.bdf) in ("RUNNING", "PRE_COPY"):
            self.dev.write(at % SIZE, data)
            at += len(data)
            time.sleep(0.001)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *unused):
        self.stop.set()
        self.thread.join()


@test
def total_time_does_not_wait_for_the_target():
    with Held(A, contents(10)) as dev, Delay(B, 1500):
        with Writer(dev):
            receiving, sending = transfer(dev, "unix:" + path("socket"), "--optimize", "total-time")
            numbers = json.loads(finish(sending)[0])
        finish(receiving)
        check(not numbers["acked_while_running"] and numbers["downtime_ns"] > 0.8e9, numbers)


@test
def a_bound_that_cannot_be_kept():
    with Held(A, contents(11)) as dev:
        with Writer(dev):
            receiving, sending = transfer(dev, "unix:" + path("socket"), "--max-downtime", "2")
            err = finish(sending, 5)[1]
        check("written anew" in err, err)
        finish(receiving, 4)
        check(state(A) == "RUNNING", state(A))
        # And now that nobody writes, one that can
        receiving, sending = transfer(dev, "unix:" + path("socket"), "--max-downtime", "2000")
        finish(sending)
        finish(receiving)
        check(read_file("out") == dev.read(), "contents")


@test
def a_bound_without_pre_copy():
    with Knob(A, "no_precopy", "Y"), Held(A, contents(24)) as dev:
        receiving, sending = transfer(dev, "unix:" + path("socket"), "--max-downtime", "5000")
        err = finish(sending, 5)[1]
        check("no downtime can be promised" in err, err)
        finish(receiving, 4)
        check(state(A) == "RUNNING", state(A))
        numbers = json.loads(run("move", dev.name, B, "--verify", "--json", fds=(dev.fd,)).stdout)
        check(numbers["bytes"]["initial"] == 0 and state(A) == "STOP", numbers)


@test
def a_device_that_gives_much_more_than_it_announced():
    # So it looks if somebody never ceases to store to it: that would be a race
    large = 64 << 20
    try:
        for bdf in A, B:
            put(sysfs(bdf, "precopy/memory_size"), large)
        args = A, B, "--verify", "--fill-region", "2=" + write_file("large", os.urandom(40 << 20))
        with Knob(A, "data_size", 1):
            err = run("move", *args, "--stop-copy", status=1).stderr
            check("still store to it" in err and "nothing of it is lost" in err, err)
            run("move", *args)
        run("move", *args, "--stop-copy")
    finally:
        for bdf in A, B:
            put(sysfs(bdf, "precopy/memory_size"), SIZE)


@test
def total_time_waits_if_that_costs_nothing():
    if info(A)["startup"] is None:
        raise Skip("the driver tells nothing of startups")
    with Delay(B, 1500):
        got = run("move", A, B, "--verify", "--json", "--optimize", "total-time", "--fill-region",
                  "2=" + write_file("in", contents(19)))
    numbers = json.loads(got.stdout)
    # Nobody writes: it runs on nearly until the target is ready
    check(numbers["ack_wait_ns"] > 1e9 and numbers["downtime_ns"] < 0.6e9, numbers)


@test
def startup_that_begins_anew():
    with Held(A, contents(20)) as dev, Delay(B, 700):
        reinit = Knob(A, "reinit", 1)
        proxy = Proxy(0, True, "")
        receiving = receiver(proxy.target)
        sending = start("send", dev.name, "--to", proxy.address, "--json", fds=(dev.fd,))
        until(lambda: MARK in proxy.seen)
        dev.write(5000, b"changed by REINIT")
        put(reinit.file, 1)
        numbers = json.loads(finish(sending)[0])
        finish(receiving)
        check(read_file("out") == dev.read(), "contents")
        marks = proxy.seen.count(MARK)
        check(marks == 2 and ACK in proxy.seen, f"{marks} marks")
        check(numbers["acked_while_running"] and numbers["downtime_ns"] < 0.6e9, numbers)


def on_a_terminal(*args, fds=(), term="xterm"):
    """What a person sees who waits for it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    with subprocess.Popen([VM, *args], pass_fds=fds, stdout=subprocess.PIPE, stderr=theirs,
                          env=dict(os.environ, TERM=term)) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:     # so a terminal says that nobody is left
                break
            seen += piece
    os.close(ours)
    check(process.returncode == 0, process.returncode, seen)
    return seen.decode()


@test
def progress_is_shown():
    data = "2=" + write_file("in", contents(26))
    with Delay(B, 2500):
        seen = on_a_terminal("move", A, B, "--verify", "--fill-region", data)
        bars = [bar for bar in seen.split("\r\x1b[K") if bar.startswith("[")]
        waiting = [bar for bar in bars if "waiting" in bar]
        check(len(waiting) > 4, seen)
        for word in "[==", "%", ":0", "to go,", "/s dirty", "target ready in":
            check(any(word in bar for bar in waiting), f"no '{word}' in", waiting)
        check(any("initial" in bar for bar in bars) and max(map(len, bars)) < 80, bars)
        check(seen.endswith("\r\x1b[K"), "the bar stays", seen[-200:])
        lines = run("move", A, B, "--verify", "--fill-region", data).stderr.splitlines()
        check(3 <= len(lines) <= 30 and "\x1b" not in "".join(lines), lines)
        check(not run("move", A, B, "--verify", "-q", "--fill-region", data).stderr, "not quiet")
        run("save", A, "-q", "--fill-region", data, "-o", path("snap"))
        seen = on_a_terminal("load", B, "--verify", "-i", path("snap"))
        check("arriving" in seen and "ready in" in seen and "%" in seen, seen)
        with Held(A, contents(26)) as dev:
            sending = start("send", dev.name, "--to", "unix:" + path("socket"), "-q", fds=(dev.fd,))
            seen = on_a_terminal("receive", B, "--verify", "--listen", "unix:" + path("socket"))
            finish(sending)
            check("arriving" in seen and "ready in" in seen, seen)


# --- Whatever goes wrong --------------------------------------------------------------------------

# What is spoiled, and what becomes of source and target: GO is where there is no
# way back, so only from there on the source stays stopped.
PLACES = [
    (HELLO, True, 4, (4, 3)), (DATA, True, 4, (4, 1)), (MARK, True, 4, (4,)), (END, True, 4, (4,)),
    (GO, True, 6, (4,)),
    (HELLO, False, 4, (4,)), (STATUS, False, 4, (4,)), (ACK, False, 4, (4,)), (READY, False, 4, (4,)),
    (RUNNING, False, 6, (0,)),
]


def faulty(dev, data, kind, to_target, fault, tcp, source_status, target_status, timeout=None):
    about = f"{fault} of {NAMES[kind]} over {'tcp' if tcp else 'unix'}"
    proxy = Proxy(kind, to_target, fault, tcp)
    timeout = timeout or ("0.7" if fault == "silence" else "10")
    # What is no HELLO is not from a source: it waits for one that is
    wait = ("--accept-timeout", "3") if kind == HELLO and to_target and fault != "repeat" else ()
    receiving = start("receive", B, "--listen", proxy.target, "--verify", "--timeout", timeout, *wait)
    sending = start("send", dev.name, "--to", proxy.address, "--timeout", timeout, "-q", fds=(dev.fd,))
    try:
        finish(sending, source_status, 15)
        finish(receiving, target_status, 15)
        check(proxy.happened, "it did not happen")
        # It has all when it says so, but runs only when it is told to
        expected = {READY: "STOP", GO: "STOP", RUNNING: "RUNNING"}.get(kind, proxy.target_state)
        check(proxy.target_state == expected, f"target in {proxy.target_state}")
        home = "STOP" if source_status in (0, 6) else "RUNNING"
        check(state(A) == home, f"source in {state(A)}")
        check(dev.read() == data, "contents")
    except AssertionError as err:
        raise AssertionError(f"{about}: {err}") from None
    finally:
        proxy.hang_up()


def faults(kind_of_fault, places):
    data = contents(12)
    dev = Held(A, data)
    try:
        for place, tcp in ((p, t) for p in places for t in (False, True)):
            faulty(dev, data, place[0], place[1], kind_of_fault, tcp, *place[2:])
            if place[2] in (0, 6):
                dev.close()
                dev = Held(A, data)
    finally:
        dev.close()


@test
def connection_cut_at_every_frame():
    faults("cut", PLACES)


@test
def connection_cut_in_every_frame():
    faults("half", PLACES)


@test
def every_frame_damaged():
    faults("damage", PLACES)


@test
def every_frame_repeated():
    # Nobody listens any more after GO and RUNNING
    done = {GO: (GO, True, 0, (0,)), RUNNING: (RUNNING, False, 0, (0,))}
    faults("repeat", [done.get(place[0], place) for place in PLACES])


@test
def silence_instead_of_every_frame():
    faults("silence", [place for place in PLACES if place[0] not in (STATUS, HELLO)])


@test
def signs_of_life_and_errors_spoiled():
    # These two come only if there is a reason. What is silent is found out elsewhere.
    data = contents(22)
    with Held(A, data) as dev:
        for fault in "cut", "half", "damage", "repeat":
            for tcp in False, True:
                with Delay(B, 2500):
                    faulty(dev, data, KEEPALIVE, True, fault, tcp, 4, (4,), timeout="3")
                with Knob(B, "startup_fail", 12):
                    faulty(dev, data, ERROR, False, fault, tcp, 4, (1,), timeout="3")


@test
def target_killed_while_it_starts():
    data = contents(13)
    with Held(A, data) as dev, Delay(B, 20000):
        for number, status in (signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143):
            receiving, sending = transfer(dev, "unix:" + path("socket"))
            until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
            check(state(A) == "PRE_COPY", state(A))
            t0 = time.monotonic()
            receiving.send_signal(number)
            err = finish(sending, 4)[1]
            finish(receiving, status)
            check(time.monotonic() - t0 < 3, "took long")
            check("nothing of it is lost" in err, err)
            check(state(A) == "RUNNING" and dev.read() == data, "source")


@test
def source_interrupted_while_it_waits():
    data = contents(14)
    with Held(A, data) as dev, Delay(B, 20000):
        for number, status in (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129):
            receiving, sending = transfer(dev, "unix:" + path("socket"))
            until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
            # In the middle of a frame it could not say why
            until(lambda: get(sysfs(A, "precopy/initial_bytes")) == "0")
            time.sleep(0.1)
            sending.send_signal(number)
            finish(sending, status)
            err = finish(receiving, 4)[1]
            check("interrupted" in err, "the target does not know:", err)
            check(state(A) == "RUNNING" and dev.read() == data, "source")


@test
def source_killed_while_it_waits():
    data = contents(15)
    with Held(A, data) as dev:
        with Delay(B, 20000):
            receiving, sending = transfer(dev, "unix:" + path("socket"))
            until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
            sending.kill()
            finish(sending, -9)
            finish(receiving, 4)
            check(state(A) == "PRE_COPY", state(A))
        receiving, sending = transfer(dev, "unix:" + path("socket"))
        check("did not end" in finish(sending)[1], "no word")
        finish(receiving)
        check(read_file("out") == data, "contents")


@test
def target_that_takes_too_long():
    data = contents(16)
    with Held(A, data) as dev, Delay(B, 20000):
        receiving, sending = transfer(dev, "unix:" + path("socket"), "--ack-timeout", "0.5")
        check("has not started" in finish(sending, 4)[1])
        finish(receiving, 4)
        check(state(A) == "RUNNING" and dev.read() == data, "source")


@test
def move_fails_and_nothing_is_lost():
    data = contents(17)
    with Held(A, data) as dev, Delay(B, 20000):
        moving = start("move", dev.name, B, "--verify", fds=(dev.fd,))
        until(lambda: get(sysfs(B, "precopy/startup")) == "starting")
        moving.send_signal(signal.SIGINT)
        finish(moving, 130)
        check(state(A) == "RUNNING" and dev.read() == data, "source")
        check(info(B)["can_migrate"], "the target stays busy")
    put(sysfs(B, "precopy/memory_size"), 2 << 20)
    try:
        with Held(A, data) as dev:
            err = run("move", dev.name, B, "--verify", status=3, fds=(dev.fd,)).stderr
            check("the memory differs" in err, err)
            check(state(A) == "RUNNING" and dev.read() == data, "source")
    finally:
        put(sysfs(B, "precopy/memory_size"), SIZE)


def injected(knob, sender_status, receiver_status, *args):
    data = contents(21)
    with Held(A, data) as dev, knob:
        receiving, sending = transfer(dev, "unix:" + path("socket"), *args)
        finish(sending, sender_status)
        finish(receiving, receiver_status)
        check(state(A) == "RUNNING" and dev.read() == data, f"source in {state(A)}")
    check(info(B)["can_migrate"])


@test
def source_cannot_be_read():
    for at in 1, 100000:
        injected(Knob(A, "fail_save_at", at), 1, 4)
        injected(Knob(A, "fail_save_at", at), 1, 4, "--stop-copy")


@test
def target_cannot_be_written():
    for at in 1, 100000:
        injected(Knob(B, "fail_load_at", at), 4, 1)
        injected(Knob(B, "fail_load_at", at), 4, 1, "--stop-copy")


@test
def target_cannot_start():
    injected(Knob(B, "startup_fail", 12), 4, 1)
    injected(Knob(B, "startup_fail", 12), 4, 1, "--optimize", "total-time")


# --- Hostile peers ----------------------------------------------------------------------------------

def memory_kib(pid):
    for line in get(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def connects(sock):
    """The socket's file is there a moment before anybody listens."""
    return sock.connect_ex(path("socket")) == 0


def attack_target(attack, status, *args):
    receiving = receiver("unix:" + path("socket"), "--verify", "--timeout", "0.5", *args)
    with socket.socket(socket.AF_UNIX) as sock:
        until(lambda: connects(sock))
        sock.settimeout(5)
        t0 = time.monotonic()
        try:
            attack(sock, receiving)
        except (BrokenPipeError, ConnectionResetError):
            pass
        err = finish(receiving, status, 10)[1]
        check(time.monotonic() - t0 < 12, "took long")
    return err


@test
def hostile_sources():
    def garbage(sock, _):
        sock.sendall(os.urandom(1 << 20))

    def oversize(sock, _):
        sock.sendall(hello() + frame(DATA, b"", 1, length=0xffffffff))

    def silent(_sock, receiving):
        receiving.wait(5)

    def trickle(sock, _):
        for byte in hello():
            sock.sendall(bytes([byte]))
            time.sleep(0.1)

    def trickled_data(sock, _):
        sock.sendall(hello() + frame(DATA, b"x" * 100, 1)[:24])
        for _ in range(100):
            sock.sendall(b"x")
            time.sleep(0.1)

    def flood(sock, receiving):
        sock.sendall(hello())
        end, sequence = time.monotonic() + 1, 1
        while time.monotonic() < end:
            sock.sendall(b"".join(frame(KEEPALIVE, b"", sequence + i) for i in range(100)))
            sequence += 100
        check(memory_kib(receiving.pid) < 20000, memory_kib(receiving.pid))

    def only_alive(sock, receiving):
        sock.sendall(hello())
        sequence = 1
        while receiving.poll() is None:
            sock.sendall(frame(KEEPALIVE, b"", sequence))
            sequence += 1
            time.sleep(0.03)

    def bad_stream(sock, receiving):
        sock.sendall(hello() + frame(DATA, b"not a stream" * 100, 1))
        kind, text = recv_frame(sock)
        while kind not in (ERROR, None):
            kind, text = recv_frame(sock)
        check(kind == ERROR and b"does not accept" in text, kind, text)
        check(memory_kib(receiving.pid) < 20000, memory_kib(receiving.pid))

    def go_at_once(sock, _):
        sock.sendall(hello() + frame(GO, b"", 1))

    def end_too_early(sock, _):
        sock.sendall(hello() + frame(END, struct.pack("<QQ", 1000, 0), 1))

    def other_version(sock, _):
        sock.sendall(frame(HELLO, bytes(80), version=2))

    for attack, word in ((garbage, "not from vfio-migrate"), (silent, "HELLO in time"),
                         (trickle, "HELLO in time"), (other_version, "another version")):
        err = attack_target(attack, 4, "--accept-timeout", "4")
        check("is not from a source" in err and word in err, attack.__name__, err)
    for attack, word in ((oversize, "length that it cannot have"), (trickled_data, "nothing was heard"),
                         (flood, "nothing was heard"), (bad_stream, "does not accept the stream"),
                         (go_at_once, "not ready"), (end_too_early, "something is missing")):
        err = attack_target(attack, 1 if attack == bad_stream else 4)
        check(word in err, attack.__name__, err)
    for _ in range(5):      # Python itself may be silent for so long
        err = attack_target(only_alive, 4, "--timeout", "0.2")
        if "nothing was heard" not in err:
            break
    check("nothing but signs of life" in err, err)
    check("nobody has connected" in
          run("receive", B, "--listen", "unix:" + path("socket"), "--verify", "--accept-timeout", "0.2",
              status=4).stderr)
    check(info(B)["can_migrate"])


def attack_source(dev, attack, status=4):
    with socket.socket(socket.AF_UNIX) as listener:
        if os.path.exists(path("socket")):
            os.unlink(path("socket"))
        listener.bind(path("socket"))
        listener.listen(1)
        sending = start("send", dev.name, "--to", "unix:" + path("socket"), "--timeout", "0.5", fds=(dev.fd,))
        sock, _ = listener.accept()
    with sock:
        sock.settimeout(5)
        try:
            attack(sock, sending)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return finish(sending, status, 10)[1]


@test
def hostile_targets():
    def garbage(sock, _):
        sock.sendall(os.urandom(1 << 20))

    def deaf(sock, sending):
        sock.sendall(hello())
        sending.wait(5)
        check(memory_kib(sending.pid) < 20000 if sending.poll() is None else True)

    def flood(sock, sending):
        sock.sendall(hello())
        sequence = 1
        for _ in range(50):
            sock.sendall(b"".join(frame(STATUS, bytes(40), sequence + i) for i in range(100)))
            sequence += 100
        check(memory_kib(sending.pid) < 20000 if sending.poll() is None else True)

    def ack_of_nothing(sock, _):
        sock.sendall(hello() + frame(ACK, struct.pack("<QQ", 0, 1), 1))

    def too_much_written(sock, _):
        sock.sendall(hello() + frame(STATUS, struct.pack("<QIIQQQ", 1 << 60, 0, 0, 0, 0, 0), 1))

    def ready_at_once(sock, _):
        sock.sendall(hello() + frame(READY, bytes(16), 1))

    def running_at_once(sock, _):
        sock.sendall(hello() + frame(RUNNING, b"", 1))

    def data_back(sock, _):
        sock.sendall(hello() + frame(DATA, b"x", 1))

    def escapes(sock, _):
        sock.sendall(hello() + frame(ERROR, b"\x1b[2Jgone", 1))

    def ack_without_writing(sock, _):
        sock.sendall(hello())
        kind, data = 0, b""
        while kind != MARK:
            kind, data = recv_frame(sock)
        sock.sendall(frame(ACK, struct.pack("<QI4x", 0, struct.unpack_from("<I", data, 32)[0]), 1))

    data = contents(18)
    with Held(A, data) as dev:
        for attack, word in ((garbage, "not from vfio-migrate"), (deaf, "nothing was heard"),
                             (flood, "nothing was heard"),
                             (ack_of_nothing, "nothing to acknowledge"), (too_much_written, "more than was sent"),
                             (ready_at_once, "has not ended"), (running_at_once, "was not told to run"),
                             (data_back, "data to the source"), (ack_without_writing, "less than the mark")):
            err = attack_source(dev, attack)
            check(word in err, attack.__name__, err)
            check(state(A) == "RUNNING" and dev.read() == data, attack.__name__)
        err = attack_source(dev, escapes)
        check("?[2Jgone" in err and "\x1b[2Jgone" not in err, repr(err))
        run("send", dev.name, "--to", "unix:/nonexistent/socket", "--timeout", "0.2", status=4, fds=(dev.fd,))
        check(state(A) == "RUNNING" and dev.read() == data, "source")


# --- Running them -----------------------------------------------------------------------------------

def main(tests):
    for bdf in A, B:
        put(sysfs(bdf, "precopy/memory_size"), SIZE)
    tests = [t for t in tests if PATTERN in t.__name__]
    print(f"TAP version 13\n1..{len(tests)}", flush=True)
    failed = 0
    for number, function in enumerate(tests, 1):
        began = time.monotonic()
        try:
            function()
            verdict, note = "ok", ""
        except Skip as why:
            verdict, note = "ok", f" # SKIP {why}"
        except Exception as err:  # whatever it is, the others shall run
            failed += 1
            verdict, note = "not ok", ""
            print("# " + f"{type(err).__name__}: {err}".replace("\n", "\n# "))
        print(f"{verdict} {number} - {function.__name__.replace('_', ' ')}{note}", flush=True)
        print(f"# {time.monotonic() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(TESTS))
