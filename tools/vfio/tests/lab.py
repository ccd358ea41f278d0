# SPDX-License-Identifier: GPL-2.0-only
"""
What the tests of vfio-migrate share: two devices, programs, frames and a proxy.

The tests run with two devices that are bound to precopy-vfio-pci:

  VFIO_MIGRATE=.../vfio-migrate PRECOPY_CARRIERS="BDF-A BDF-B" pytest

What is expected of a device's contents never comes from the program under test:
it is written and read here, through the device's own file descriptor.
"""

import ctypes
import fcntl
import json
import os
import pty
import random
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

VM = os.environ["VFIO_MIGRATE"]
A, B = os.environ["PRECOPY_CARRIERS"].split()[:2]
SIZE = 4 << 20
BAR, CONFIG = 2 << 40, 7 << 40
# Beside the program there is what some tests have it preload.
SLOW, CLOCK = (os.path.join(os.path.dirname(VM), name) for name in ("slow.so", "clock.so"))

HELLO, DATA, MARK, ACK, STATUS, KEEPALIVE, END, READY, GO, RUNNING, ERROR = range(1, 12)
NAMES = dict(zip(range(1, 12), "HELLO DATA MARK ACK STATUS KEEPALIVE END READY GO RUNNING ERROR".split()))


class Place:
    """The test's own directory, which the fixture "own_folder" sets"""
    folder = ""


def path(name):
    return os.path.join(Place.folder, name)


def unix(name="socket"):
    """Address of a socket in the test's directory"""
    return "unix:" + path(name)


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


class Knob:
    """One of the driver's knobs for tests, turned as long as the context lasts"""
    def __init__(self, bdf, name, value):
        self.file = f"/sys/kernel/debug/vfio/{bdf}/precopy/{name}"
        self.value = value
        if not os.path.exists(self.file):
            pytest.skip(f"the driver has no {name}")

    def __enter__(self):
        put(self.file, self.value)

    def __exit__(self, *unused):
        put(self.file, "N" if isinstance(self.value, str) else 0)


class Hold(Knob):
    """Startups and stops do not end before the context does"""
    def __init__(self, bdf):
        super().__init__(bdf, "hold", 1)


class Delay(Knob):
    """Startups of a target take longer"""
    def __init__(self, bdf, ms):
        super().__init__(bdf, "startup_delay_ms", ms)


def contents(seed):
    """Random pages, zero pages, and pages that nobody has touched"""
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


def output(*names):
    """Makes a new directory for output; with names, nothing else must be in it"""
    where = path("place")
    if names:
        assert sorted(os.listdir(where)) == sorted(names), os.listdir(where)
    else:
        subprocess.run(["rm", "-rf", where], check=True)
        os.mkdir(where)


# --- Programs ----------------------------------------------------------------------

def run(*args, status=0, fds=(), timeout=30, stdin=None):
    got = subprocess.run([VM, *args], pass_fds=fds, timeout=timeout, text=True, stdin=stdin,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    about = f"{args}: status {got.returncode}, not {status}: {got.stdout} {got.stderr}"
    assert status is None or got.returncode == status, about
    return got


def start(*args, fds=(), **env):
    return subprocess.Popen([VM, *args], pass_fds=fds, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **env})


def catches(pid, number):
    """Has the program gone so far that it handles this signal?"""
    for line in get(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16) >> (number - 1) & 1
    return 0


def starting():
    """The target has all of the device's initial data, and its startup has begun"""
    return get(sysfs(B, "precopy/startup")) == "starting"


def finish(process, status=0, timeout=30):
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} hangs: {out} {err}") from None
    allowed = status if isinstance(status, tuple) else (status,)
    about = f"{process.args}: status {process.returncode}, not {status}: {out} {err}"
    assert status is None or process.returncode in allowed, about
    return out, err


class Clock:
    """That of programs that are started with env(), see clock.c"""
    @staticmethod
    def env():
        return {"LD_PRELOAD": CLOCK, "CLOCK_FAST": path("fast")}

    @staticmethod
    def run_fast():
        write_file("fast", b"")

    @staticmethod
    def heard_nothing(process):
        """Seconds of it for which a program that has ended had received nothing"""
        return int(read_file(f"fast.{process.pid}")) / 1000


def popen(*args, prepare=None, fds=(), stdout=subprocess.PIPE):
    return subprocess.Popen([VM, *args], pass_fds=fds, stdout=stdout, stderr=subprocess.PIPE, preexec_fn=prepare,
                            restore_signals=False)


def ended(process, status, *about):
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, (f"{process.args}: status {process.returncode}, not {status}: {err}", *about)
    return err.decode()


class Held:
    """A device with contents that stays open, as a VM's would"""
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
        assert self.fd >= 0, "pidfd_getfd"
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


# --- Frames ------------------------------------------------------------------------

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
    """
    Between a source and a target; does something to the first frame of a kind. When it
    has begun to swallow all frames it calls silenced(), and from then on neither side
    sees what the other does.
    """
    def __init__(self, kind, to_target, fault, tcp=False, silenced=None):
        self.kind, self.to_target, self.fault, self.silenced = kind, to_target, fault, silenced
        self.left = self.right = None
        self.happened = False
        self.seen = []
        self.target_state = None
        self.quiet = threading.Event()
        self.listener, place = self.listen(tcp)
        self.target = free_port() if tcp else unix("target")
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
        self.is_over()

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
        self.silenced()
        return data

    def is_over(self):
        """Nobody receives anything any more; a peer that has gone is silent as well"""
        if not self.quiet.is_set():
            self.hang_up()

    def hang_up(self):
        for sock in (self.left, self.right):
            try:
                if sock:
                    sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


# --- What more than one file does ----------------------------------------------------

def info(device, status=0, *args, fds=()):
    return json.loads(run("info", device, "--json", *args, status=status, fds=fds).stdout)


def set_state(dev, number):
    """What a VMM does; returns the data fd, or -1"""
    arg = bytearray(struct.pack("<IIIi", 16, 1 << 17 | 2, number, -1))
    fcntl.ioctl(dev.fd, 0x3b75, arg)
    return struct.unpack("<IIIi", arg)[3]


def rebind(bdf, driver):
    if os.path.exists(sysfs(bdf, "driver")):
        put(sysfs(bdf, "driver/unbind"), bdf)
    put(sysfs(bdf, "driver_override"), driver + "\n")
    if driver:
        put("/sys/bus/pci/drivers_probe", bdf)


def until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.01)


def receiver(address, *args, **env):
    return start("receive", B, "--listen", address, *(args or ("--dump-region", "2=" + path("out"))), **env)


def transfer(dev, address, *args):
    """Send dev to B"""
    receiving = receiver(address)
    sending = start("send", dev.name, "--to", address, "--json", *args, fds=(dev.fd,))
    return receiving, sending


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


class Writer:
    """Stores to a device without pause, until it is stopped, as a guest does"""
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


def on_a_terminal(*args, fds=(), term="xterm"):
    """What a person sees who waits for it"""
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
    assert process.returncode == 0, (process.returncode, seen)
    return seen.decode()


def memory_kib(pid):
    for line in get(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def connects(sock):
    """The socket's file is there a moment before anybody listens"""
    return sock.connect_ex(path("socket")) == 0
