# SPDX-License-Identifier: GPL-2.0-only
"""What vfio-migrate reads and writes: snapshots, dumps, standard files, and JSON."""

import json
import os
import re
import signal
import stat
import struct
import subprocess

from lab import (A, B, SIZE, VM, Delay, Held, contents, finish, get, info, output, path, put, read_file, run,
                 start, starting, state, sysfs, unix, until, write_file)

MANUAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vfio-migrate.8")


def vm(*args, status=0, stdout=subprocess.PIPE, prepare=None, fds=(), stdin=None):
    """Run vfio-migrate; what it prints is bytes."""
    got = subprocess.run([VM, *args], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=30,
                         preexec_fn=prepare, pass_fds=fds, check=False)
    assert got.returncode == status, f"{args}: status {got.returncode}, not {status}: {got.stderr}"
    return got


def filled(data):
    return "--fill-region", "2=" + write_file("in", data)


def loads_as(snapshot, data):
    run("load", B, "-q", "-i", path(snapshot), "--dump-region", "2=" + path("loaded"))
    return read_file("loaded") == data


# Each writes a device's contents to a file in a way of its own, and says what is in it then
def by_save(output, data, **more):
    return vm("save", A, *filled(data), "-o", output, **more)


def by_dump_of_source(output, data, **more):
    return vm("save", A, *filled(data), "-o", path("other.snap"), "--dump-region", "2=" + output, **more)


def by_dump_of_target(output, data, **more):
    return vm("move", A, B, *filled(data), "--dump-region", "2=" + output, **more)


WAYS = by_save, by_dump_of_source, by_dump_of_target


def has(way, got, data):
    """Is that what this way writes?"""
    if way is not by_save:
        return got == data
    write_file("got", got)
    return loads_as("got", data)


def test_links_are_followed():
    for seed, way in enumerate(WAYS):
        data = contents(100 + seed)
        output()
        os.symlink("file", path("place/link"))
        os.symlink(path("place/link"), path("place/long"))
        # It leads to nothing, and then to a file
        for _ in range(2):
            way(path("place/long"), data)
            assert os.path.islink(path("place/link")) and os.path.islink(path("place/long")), "links"
            assert has(way, read_file("place/file"), data), way.__name__
        output("file", "link", "long")


def test_special_files_are_written_to():
    for seed, way in enumerate(WAYS):
        data = contents(110 + seed)
        output()
        os.mkfifo(path("place/fifo"))
        with subprocess.Popen(["sh", "-c", f"cat {path('place/fifo')} >{path('read')}"]) as reader:
            way(path("place/fifo"), data)
            assert reader.wait(30) == 0 and has(way, read_file("read"), data), way.__name__
        assert stat.S_ISFIFO(os.lstat(path("place/fifo")).st_mode), "the fifo is gone"
        os.mknod(path("place/null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        way(path("place/null"), data)
        assert stat.S_ISCHR(os.lstat(path("place/null")).st_mode), "the device node is gone"
        output("fifo", "null")


def test_open_files_are_written_to():
    for seed, way in enumerate(WAYS):
        data = contents(120 + seed)
        output()
        os.symlink("/proc/self/fd/1", path("place/stdout"))
        # A pipe, and a file that somebody else has begun and will go on with
        assert has(way, way(path("place/stdout"), data).stdout, data), way.__name__
        with open(path("place/file"), "wb", buffering=0) as out:
            out.write(b"before")
            got = way(path("place/stdout"), data, stdout=out)
            out.write(b"after")
        assert b"downtime" in got.stderr, ("no summary:", got.stderr)
        got = read_file("place/file")
        assert got.startswith(b"before") and got.endswith(b"after"), len(got)
        assert has(way, got[6:-5], data), way.__name__
        assert os.path.islink(path("place/stdout")), "the link is gone"
        # One that is open under a number of its own
        with open(path("place/file"), "wb") as out:
            way(f"/proc/self/fd/{out.fileno()}", data, fds=(out.fileno(),))
        assert has(way, read_file("place/file"), data), way.__name__
        output("file", "stdout")


def test_only_the_owner_can_read_them():
    data = contents(130)
    for way in WAYS:
        output()
        way(path("place/file"), data, prepare=lambda: os.umask(0))
        mode = os.stat(path("place/file")).st_mode
        assert mode & 0o777 == 0o600, (way.__name__, oct(mode))
        os.chmod(path("place/file"), 0o640)
        os.chown(path("place/file"), 7, 8)
        way(path("place/file"), data)
        after = os.stat(path("place/file"))
        assert after.st_mode & 0o777 == 0o640 and (after.st_uid, after.st_gid) == (7, 8), (way.__name__, after)
        output("file")


def test_names_may_be_as_long_as_names_can_be():
    data = contents(131)
    for way in WAYS:
        output()
        way(path("place/" + "x" * 255), data)
        assert has(way, read_file("place/" + "x" * 255), data), way.__name__
        output("x" * 255)


def test_no_summary_where_data_goes():
    data = contents(132)
    for way in WAYS:
        got = way("-", data)
        assert has(way, got.stdout, data), way.__name__
        assert b"device downtime" in got.stderr, got.stderr
    got = vm("save", A, "--json", *filled(data), "-q")
    assert has(by_save, got.stdout, data) and json.loads(got.stderr)["command"] == "save", got.stderr
    run("save", A, "-q", *filled(data), "-o", path("snap"))
    got = vm("load", B, "--json", "-q", "-i", path("snap"), "--dump-region", "2=-")
    assert got.stdout == data and json.loads(got.stderr)["command"] == "load", got.stderr
    got = vm("save", A, "-o", "-", "--dump-region", "2=/proc/self/fd/1", status=2)
    assert not got.stdout and b"one file only" in got.stderr, got.stderr
    for args in (), ("--dump-region", "2=-"):
        ours, theirs = os.openpty()
        got = vm("save", A, *(args and ("-o", path("snap"))), *args, stdout=theirs, status=2)
        assert b"is a terminal" in got.stderr, got.stderr
        os.close(ours)
        os.close(theirs)


def closing(*fds):
    def close():
        for fd in fds:
            os.close(fd)
    return close


def test_standard_files_that_are_closed():
    data = contents(133)
    for fds in (0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2):
        output()
        vm("save", A, *filled(data), "-o", path("place/snap"), prepare=closing(*fds))
        output("snap")
        assert loads_as("place/snap", data), ("the snapshot without", fds)
        vm("move", A, B, *filled(data), "--dump-region", "2=" + path("out"), prepare=closing(*fds))
        assert read_file("out") == data, ("a dump without", fds)
    assert b"standard output" in vm("save", A, prepare=closing(1), status=7).stderr, "no word"
    assert b"ends early" in vm("load", B, "--verify", prepare=closing(0), status=7).stderr, "no word"


def test_load_refuses_what_follows_the_end():
    run("save", A, "-q", *filled(contents(134)), "-o", path("snap"))
    good = read_file("snap")
    for more in b"x", b"\0", good:
        write_file("bad", good + more)
        err = run("load", B, "--verify", "-i", path("bad"), status=7).stderr
        assert "something follows its end" in err, err
        with subprocess.Popen(["cat", path("bad")], stdout=subprocess.PIPE) as pipe:
            vm("load", B, "--verify", stdin=pipe.stdout, status=7)
    # A pipe that stays open may bring more: it waits, says so, and hears a signal
    with subprocess.Popen(["sh", "-c", f"cat {path('snap')}; exec sleep 1000"], stdout=subprocess.PIPE) as pipe:
        loader = subprocess.Popen([VM, "load", B, "--verify"], stdin=pipe.stdout, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while "waiting for the end" not in (line := loader.stderr.readline()):
            assert line, "no word"
        assert state(B) != "RUNNING", "it runs already"
        loader.send_signal(signal.SIGTERM)
        finish(loader, 143)
        pipe.kill()


def test_another_memory_size_is_named():
    def named(text):
        return "4194304 bytes" in text and "2097152 bytes" in text and "4.0 MiB" in text

    run("save", A, "-q", *filled(contents(135)), "-o", path("snap"))
    size = struct.unpack_from("<Q", read_file("snap"), 24 + 64)[0]
    assert size == SIZE, ("HELLO says", size)
    put(sysfs(B, "precopy/memory_size"), SIZE // 2)
    try:
        assert named(run("load", B, "--verify", "-i", path("snap"), status=3).stderr)
        with Held(A, contents(135)) as dev:
            assert named(run("move", dev.name, B, "--verify", status=3, fds=(dev.fd,)).stderr)
            receiving = start("receive", B, "--listen", unix(), "--verify")
            sending = start("send", dev.name, "--to", unix(), fds=(dev.fd,))
            assert named(finish(sending, 3)[1]) and named(finish(receiving, (3, 4))[1])
            assert state(A) == "RUNNING" and dev.read() == contents(135), "source"
        got = info(B)
        assert got["memory_size"] == SIZE // 2, got
    finally:
        put(sysfs(B, "precopy/memory_size"), SIZE)


def keys_of(value):
    for key, inner in value.items():
        yield key
        if isinstance(inner, dict):
            yield from keys_of(inner)


def documented():
    """What the manual has as a literal in a list's tag or in text."""
    words = set()
    for line in get(MANUAL).splitlines():
        if re.match(r"\.(It )?Li ", line):
            words.update(re.findall(r"[a-z_]+", line[4:]))
    return words


def object_of(got, *keys):
    assert isinstance(got, dict) and set(keys) <= set(got), (got, "lacks some of", keys)
    unknown = set(keys_of(got)) - documented()
    assert not unknown, ("the manual does not say what these are:", unknown)
    return got


def test_every_command_speaks_json():
    data = contents(136)
    object_of(info(A), "device", "driver", "features", "memory_size", "startup", "state")
    object_of(json.loads(vm("save", A, "--json", *filled(data), "-o", path("snap")).stdout), "command", "bytes")
    got = object_of(json.loads(vm("load", B, "--json", "--verify", "-i", path("snap")).stdout), "command", "total_ns")
    assert got["bytes"]["total"] > SIZE // 3 and got["bytes_per_second"], got
    object_of(json.loads(vm("move", A, B, "--json", "--verify", *filled(data)).stdout), "downtime_ns", "bytes")
    with Held(A, data) as dev:
        receiving = start("receive", B, "--json", "--listen", unix(), "--verify")
        sending = start("send", dev.name, "--json", "--to", unix(), fds=(dev.fd,))
        sent, received = json.loads(finish(sending)[0]), json.loads(finish(receiving)[0])
        assert object_of(sent, "bytes")["command"] == "send" and received["command"] == "receive", (sent, received)
        assert sent["bytes"]["total"] == object_of(received, "bytes")["bytes"]["total"], (sent, received)
        got = object_of(json.loads(vm("run", dev.name, "--json", fds=(dev.fd,)).stdout), "state_before", "reset")
        assert got["state_before"] == "STOP" and not got["reset"] and state(A) == "RUNNING", got


def test_every_failure_is_json():
    run("save", A, "-q", *filled(contents(137)), "-o", path("snap"))
    for status, args in ((2, ("load", B)), (2, ("info",)), (2, ("load", B, "--nonsense")), (3, ("info", "00:1e.7")),
                         (3, ("info", "/sys/bus/pci/devices")), (7, ("load", B, "--verify", "-i", "/nonexistent")),
                         (4, ("send", A, "--to", "unix:/nonexistent/x", "--timeout", "0.1")),
                         (4, ("receive", B, "--verify", "--listen", "unix:/nonexistent/x")),
                         (126, ("move", A, B, "--", "/nonexistent")), (7, ("save", A, "-o", "/nonexistent/x")),
                         (2, ("run", A)), (8, ("move", A, B, "--dump-region", "2=/dev/full"))):
        args = (*args[:1], "--json", *args[1:])
        text = vm(*args, status=status).stdout.decode()
        objects, decoder = [], json.JSONDecoder()
        while text.strip():
            got, end = decoder.raw_decode(text)
            objects.append(got)
            text = text[end:].lstrip()
        assert len(objects) == (2 if status == 8 else 1), (args, objects)
        got = object_of(objects[-1], "command", "status", "error")
        assert got["command"] == args[0] and got["status"] == status and got["error"], (args, got)
    # The command's own status is no failure, and neither is there anything to say about it
    got = vm("load", B, "--json", "-q", "-i", path("snap"), "--", "sh", "-c", "exit 7", status=7)
    assert json.loads(got.stdout)["command"] == "load" and b"status" not in got.stdout, got.stdout
    with Delay(B, 20000):
        moving = start("move", A, B, "--verify", "--json", *filled(contents(137)))
        until(starting)
        moving.send_signal(signal.SIGINT)
        got = json.loads(finish(moving, 130)[0])
        assert got["status"] == 130 and got["error"] == "interrupted", got


def test_json_is_utf_8():
    name = path("ä€😀")
    got = json.loads(vm("load", B, "--json", "--verify", "-i", name, status=7).stdout)
    assert got["error"].startswith(f"--input {name}: "), got
    got = json.loads(vm("load", B, "--json", "--verify", "-i", b"/none\xff/x", status=7).stdout)
    assert got["error"].startswith("--input /none\ufffd/x: "), got
    long = path("y" * 255)
    got = json.loads(vm("load", B, "--json", "--verify", "-i", long, status=7).stdout)
    assert got["error"] == f"--input {long}: No such file or directory", got


def test_devices_by_any_path():
    place = os.path.realpath(f"/sys/bus/pci/devices/{B}")
    cdev = os.listdir(place + "/vfio-dev")[0]
    for name in f"/sys/bus/pci/devices/{B}/", place, place + "//", f"/sys/class/vfio-dev/{cdev}/device":
        for iommu in "type1", "iommufd":
            got = info(name, 0, "--iommu", iommu)
            assert got["can_migrate"] and got["opened_by"] == iommu and got["driver"] == "precopy-vfio-pci", got
    with Held(B, contents(138)):
        got = info(place + "/", 3)
        assert "in use" in got["reason"] and got["state"] == "RUNNING", got
    for name in "/", "/tmp", "/sys/bus/pci/devices/", "/sys/bus/pci/drivers/precopy-vfio-pci":
        err = run("info", name, status=3).stderr
        assert "no device" in err and "bind" not in err, err
    assert "no device" in run("info", "/sys/nonexistent/", status=3).stderr, "missing"
    with open("/dev/full", "wb") as full:
        vm("info", A, stdout=full, status=7)
