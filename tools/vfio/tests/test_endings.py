# SPDX-License-Identifier: GPL-2.0-only
"""How vfio-migrate ends: by signals, by what can be known beforehand, and by what fails
when the device has moved already.
"""

import os
import resource
import signal
import subprocess

import pytest

from lab import (A, B, SIZE, VM, Delay, Held, Knob, contents, ended, finish, get, info, output, path, popen,
                 read_file, run, set_state, start, starting, state, unix, until, write_file)


def test_files_that_may_not_be_that_large():
    data = contents(202)

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))

    with Held(A, data) as dev:
        for how in (), ("--stop-copy",):
            output()
            write_file("place/snap", b"before")
            err = ended(popen("save", dev.name, *how, "-o", path("place/snap"), prepare=small, fds=(dev.fd,)), 7)
            assert "File too large" in err, err
            output("snap")
            assert read_file("place/snap") == b"before", "the older file"
            assert state(A) == "RUNNING" and dev.read() == data, "source"
        # A dump comes after the move
        output()
        err = ended(popen("move", dev.name, B, "--dump-region", "2=" + path("place/out"), prepare=small,
                          fds=(dev.fd,)), 8)
        assert "File too large" in err and state(A) == "STOP", err
        assert not os.listdir(path("place")), os.listdir(path("place"))


def test_nobody_reads_what_it_says():
    data = contents(203)
    with Held(A, data) as dev, Delay(B, 500):
        reader, writer = os.pipe()
        os.close(reader)
        moving = subprocess.Popen([VM, "move", dev.name, B, "--verify"], pass_fds=(dev.fd,), stdout=writer,
                                  stderr=writer)
        os.close(writer)
        assert moving.wait(30) == 8, moving.returncode
        assert state(A) == "STOP", state(A)


def test_signals_that_are_ignored_stay_ignored():
    data = contents(204)
    with Held(A, data) as dev, Delay(B, 1500):
        moving = popen("move", dev.name, B, "--dump-region", "2=" + path("out"), fds=(dev.fd,),
                       prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        until(starting)
        moving.send_signal(signal.SIGHUP)
        ended(moving, 0)
        assert read_file("out") == data, "contents"


def test_children_that_nobody_is_told_of():
    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(205)), "-o", path("snap"))
    for status in 9, 0, 1:
        ended(popen("load", B, "-i", path("snap"), "--", "sh", "-c", f"exit {status}", prepare=ignore), status)
        ended(popen("move", A, B, "--", "sh", "-c", f"exit {status}", prepare=ignore), status)
    ended(popen("move", A, B, "--verify", prepare=ignore), 0)


def test_a_device_left_stopped_runs_again():
    data = contents(206)
    with Held(A, data) as dev:
        saving = popen("save", dev.name, "-q", "--stop-copy", fds=(dev.fd,))
        until(lambda: state(A) == "STOP_COPY")
        saving.kill()
        saving.wait()
        saving.stdout.close()
        saving.stderr.close()
        assert state(A) == "STOP_COPY", state(A)
        assert "vfio-migrate run" in run("save", dev.name, "-o", path("snap"), status=3, fds=(dev.fd,)).stderr
        run("run", dev.name, fds=(dev.fd,))
        assert state(A) == "RUNNING" and dev.read() == data, "it does not run"
        # Moved, but the target is gone
        run("move", dev.name, B, "--verify", fds=(dev.fd,))
        assert state(A) == "STOP", state(A)
        err = run("send", dev.name, "--to", "unix:/x", status=3, fds=(dev.fd,)).stderr
        assert "vfio-migrate run" in err, err
        run("run", dev.name, fds=(dev.fd,))
        run("run", dev.name, fds=(dev.fd,))
        assert state(A) == "RUNNING" and dev.read() == data, "it does not run"
        run("save", dev.name, "-o", path("snap"), fds=(dev.fd,))
        # Half loaded: there is nothing to go back to
        os.close(set_state(dev, 4))
        assert "--reset" in run("run", dev.name, status=3, fds=(dev.fd,)).stderr
        assert state(A) == "RESUMING", state(A)
        run("run", dev.name, "--reset", fds=(dev.fd,))
        assert state(A) == "RUNNING", state(A)
    assert "somebody has open" in run("run", A, status=2).stderr
    run("run", "fd:0", status=3)


def untouched(dev, data, status, *args):
    output()
    err = run("move", dev.name, B, *args, status=status, fds=(dev.fd,)).stderr
    assert state(A) == "RUNNING" and dev.read() == data, (args, "source in", state(A))
    assert not os.listdir(path("place")), os.listdir(path("place"))
    return err


def test_what_cannot_be_done_afterwards_is_not_begun():
    data = contents(207)
    write_file("script", b"#!/bin/sh\n")
    dump = "--dump-region", "2=" + path("place/out")
    with Held(A, data) as dev:
        for command in "/nonexistent", "no-such-command", path("script"), "/", "":
            untouched(dev, data, 126, *dump, "--", command)
        for target in "/nonexistent/out", path(""), path("script") + "/out":
            untouched(dev, data, 7, "--dump-region", "2=" + target)
        err = untouched(dev, data, 2, *dump, "--dump-region", "9=" + path("place/other"))
        assert "region 9" in err, err
        large = write_file("large", bytes(SIZE + 1))
        untouched(dev, data, 7, *dump, "--fill-region", "2=" + large)
        untouched(dev, data, 7, *dump, "--fill-region", "2=/nonexistent")
        for args in ("-o", path("snap"), "--dump-region", "2=/nonexistent/x"), ("-o", "/nonexistent/x"):
            run("save", dev.name, *args, "--fill-region", "2=" + write_file("zeros", bytes(SIZE)), status=7,
                fds=(dev.fd,))
            assert state(A) == "RUNNING" and dev.read() == data, "source"
        # Found in PATH, as a shell finds it
        run("move", dev.name, B, "--", "true", fds=(dev.fd,))
    run("receive", B, "--listen", unix(), "--", "no-such-command", status=126)
    assert not os.path.exists(path("socket")), "it listens"


def test_moved_and_then_something_failed():
    data = contents(208)
    write_file("script", b"#!/nonexistent/interpreter\n")
    os.chmod(path("script"), 0o755)
    for args in ("--dump-region", "2=/dev/full"), ("--", path("script")):
        with Held(A, data) as dev:
            err = run("move", dev.name, B, *args, status=8, fds=(dev.fd,)).stderr
            assert state(A) == "STOP" and "nothing of it is lost" not in err, err
            assert "No space" in err or "cannot be run" in err, err
    with Held(A, data) as dev, open("/dev/full", "wb") as full:
        err = ended(popen("move", dev.name, B, "--json", "--verify", stdout=full, fds=(dev.fd,)), 8)
        assert "summary" in err and state(A) == "STOP", err
    # The command is its own master
    with Held(A, data) as dev:
        run("move", dev.name, B, "--", "sh", "-c", "exit 3", status=3, fds=(dev.fd,))
        assert state(A) == "STOP", state(A)
    run("save", A, "-o", path("snap"), "--dump-region", "2=/dev/full", status=8)
    run("load", B, "-i", path("snap"), "--dump-region", "2=/dev/full", status=8)
    run("load", B, "-i", path("snap"), "--", path("script"), status=8)
    # With a failure before, that one counts
    run("send", A, "--to", "unix:/nonexistent/x", "--timeout", "0.1", "--dump-region", "2=/dev/full", status=4)


def test_what_fails_afterwards_does_not_take_the_device():
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(212)), "-o", path("snap"))
    script = f"touch {path('ran')}; exit "

    def after(*command, own, out):
        ended(popen(*command, "--", "sh", "-c", script + str(own), stdout=out), own or 8)
        os.unlink(path("ran"))

    for args, out in (("--dump-region", "2=/dev/full"), subprocess.DEVNULL), (("--json",), open("/dev/full", "wb")):
        for own in 0, 3:
            after("load", B, "-i", path("snap"), *args, own=own, out=out)
            after("move", A, B, *args, own=own, out=out)


def test_moved_and_then_the_target_was_killed():
    with Held(A, contents(209)) as dev:
        moving = start("move", dev.name, B, "--hold", fds=(dev.fd,))
        while "is held" not in (line := moving.stderr.readline()):
            assert line, "it does not hold"
        child = int(get(f"/proc/{moving.pid}/task/{moving.pid}/children"))
        os.kill(child, signal.SIGKILL)
        err = finish(moving, 8)[1]
        assert "killed by signal 9" in err and state(A) == "STOP", err
    assert info(B)["can_migrate"]


# What the driver has no knob for. SHIM "lost": a device that was stopped does not run
# again. "slow": one that has loaded takes its time until it runs.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNNING 2
#define STOP 1
#define STOP_COPY 3

int ioctl(int fd, unsigned long request, ...)
{
	static uint32_t before;
	struct { uint32_t argsz, flags, state; int32_t data_fd; } *arg;
	int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	struct timespec pause = { .tv_sec = 5 };  /* longer than --timeout */
	va_list args;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request != 0x3b75 || arg->flags != (1 << 17 | 2))
		return real(fd, request, arg);
	if (arg->state == RUNNING && before == STOP_COPY && !strcmp(getenv("SHIM"), "lost")) {
		errno = EIO;
		return -1;
	}
	if (arg->state == RUNNING && before == STOP && !strcmp(getenv("SHIM"), "slow"))
		nanosleep(&pause, NULL);
	before = arg->state;
	return real(fd, request, arg);
}
"""


def shimmed(kind, *args, status, fds=()):
    if subprocess.run(["sh", "-c", "command -v gcc"], stdout=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("there is no gcc")
    shim = path("shim.so")
    if not os.path.exists(shim):
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, write_file("shim.c", SHIM.encode())], check=True)
    got = subprocess.run([VM, *args], pass_fds=fds, env={**os.environ, "LD_PRELOAD": shim, "SHIM": kind}, text=True,
                         capture_output=True, timeout=60, check=False)
    assert got.returncode == status, f"{args}: status {got.returncode}, not {status}: {got.stdout} {got.stderr}"
    return got.stderr


def test_a_source_that_does_not_go_back():
    data = contents(210)
    with Held(A, data) as dev:
        output()
        err = shimmed("lost", "save", dev.name, "-o", path("place/snap"), status=9, fds=(dev.fd,))
        assert "does not go back" in err and state(A) == "STOP_COPY", err
        # Its snapshot may be all that is left of it
        output("snap")
        run("load", B, "-i", path("place/snap"), "--dump-region", "2=" + path("out"))
        assert read_file("out") == data, "the snapshot"
        run("run", dev.name, fds=(dev.fd,))
        with Knob(B, "startup_fail", 12):
            err = shimmed("lost", "move", dev.name, B, "--stop-copy", "--verify", status=9, fds=(dev.fd,))
        assert "does not go back" in err and "nothing of it is lost" not in err, err
        run("run", dev.name, fds=(dev.fd,))
        assert state(A) == "RUNNING" and dev.read() == data, "source"


def test_a_target_that_runs_late_is_waited_for():
    data = contents(211)
    with Held(A, data) as dev:
        shimmed("slow", "move", dev.name, B, "--timeout", "2", "--dump-region", "2=" + path("out"), status=0,
                fds=(dev.fd,))
        assert state(A) == "STOP" and read_file("out") == data, "it has not moved"
