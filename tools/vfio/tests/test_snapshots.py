# SPDX-License-Identifier: GPL-2.0-only
"""save and load."""

import os
import signal
import struct
import subprocess

import pytest

from lab import (A, B, DATA, END, GO, SIZE, VM, Delay, Held, catches, contents, finish, frame, get, hello,
                 info, path, put, read_file, run, start, starting, state, sysfs, until, write_file)


@pytest.mark.parametrize("save_by, load_by", [("type1", "iommufd"), ("iommufd", "type1")])
@pytest.mark.parametrize("how", [(), ("--stop-copy",)], ids=["pre-copy", "stop-copy"])
def test_save_and_load(data, save_by, load_by, how):
    run("save", A, "--iommu", save_by, *how, "--fill-region", "2=" + write_file("in", data), "-o", path("snap"))
    run("load", B, "--iommu", load_by, "-i", path("snap"), "--dump-region", "2=" + path("out"))
    assert read_file("out") == data


def test_save_of_a_device_in_use():
    data = contents(3)
    with Held(A, data) as dev:
        run("save", dev.name, "-o", path("snap"), fds=(dev.fd,))
        assert state(A) == "RUNNING" and dev.read() == data, "source"
        dev.write(0, b"later")
    run("load", B, "-i", path("snap"), "--dump-region", "2=" + path("out"))
    assert read_file("out") == data, "contents"


def test_save_through_a_pipe():
    data = contents(4)
    saver = start("save", A, "-q", "--fill-region", "2=" + write_file("in", data))
    run("load", B, "-q", "--dump-region", "2=" + path("out"), stdin=saver.stdout)
    saver.wait()
    assert saver.returncode == 0 and read_file("out") == data, "contents"


def test_save_leaves_no_partial_file():
    small = path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=True)
    try:
        data = write_file("in", contents(5))
        put(small + "/snap", "before")
        got = run("save", A, "--fill-region", "2=" + data, "-o", small + "/snap", status=7)
        assert "No space" in got.stderr, got.stderr
        assert os.listdir(small) == ["snap"] and get(small + "/snap") == "before", os.listdir(small)
    finally:
        subprocess.run(["umount", small], check=True)
    run("save", A, "-o", "/nonexistent/snap", status=7)
    # Nobody reads: it waits, and hears a signal
    saver = subprocess.Popen([VM, "save", A, "-q", "--fill-region", "2=" + data], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    until(lambda: catches(saver.pid, signal.SIGINT) and state(A) != "RUNNING")
    assert saver.poll() is None, "it does not wait"
    saver.send_signal(signal.SIGINT)
    assert saver.wait(10) == 130, saver.returncode
    saver.communicate()


def test_load_refuses_damage():
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


def test_load_needs_a_purpose():
    assert "loses its state" in run("load", B, "-i", path("snap"), status=2).stderr
    run("save", A, "-q", "-o", path("snap"))
    run("load", B, "-i", path("snap"), "--", "sh", "-c", "exit 9", status=9)
    run("load", B, "-i", path("snap"), "--", "/nonexistent", status=126)
    run("load", B, "-i", path("snap"), "--", "sh", "-c", "kill -9 $$", status=137)
    holder = start("load", B, "-i", path("snap"), "--hold")
    while "is held" not in holder.stderr.readline():
        assert holder.poll() is None, "died"
    assert info(B, 3)["state"] == "RUNNING"
    holder.send_signal(signal.SIGINT)
    finish(holder, 0)


def test_signal_before_the_first_wait():
    """strace sends it while the program installs its handlers, one for each signal."""
    with subprocess.Popen(["sleep", "100"], stdout=subprocess.PIPE) as silent:
        loader = subprocess.Popen(["strace", "-o", "/dev/null", "-e", "trace=rt_sigaction",
                                   "-e", "inject=rt_sigaction:signal=INT:when=90", VM, "load", B,
                                   "--verify"], stdin=silent.stdout, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        finish(loader, 130)
        silent.kill()


def test_load_can_be_interrupted():
    with subprocess.Popen(["sleep", "100"], stdout=subprocess.PIPE) as silent:
        loader = subprocess.Popen([VM, "load", B, "--verify"], stdin=silent.stdout, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: catches(loader.pid, signal.SIGINT))
        loader.send_signal(signal.SIGINT)
        finish(loader, 130)
        silent.kill()
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(6)), "-o", path("snap"))
    with Delay(B, 60000):
        loader = start("load", B, "-i", path("snap"), "--verify")
        until(starting)
        loader.send_signal(signal.SIGINT)
        finish(loader, 130, timeout=30)
