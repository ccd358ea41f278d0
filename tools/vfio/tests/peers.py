#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
peers.py VFIO-MIGRATE BDF-A BDF-B [PATTERN]

Tests what vfio-migrate makes of whoever connects before its source does, and of a
peer whose device keeps it for long. Otherwise like two_devices.py, from which it has
its helpers. slow.so is beside VFIO-MIGRATE.
"""

import os
import socket
import subprocess
import sys

import two_devices as lab
from two_devices import (A, B, DATA, ERROR, KEEPALIVE, STATUS, VM, Held, Proxy, check, connects, contents, finish,
                         frame, free_port, hello, path, read_file, receiver, recv_frame, run, start, state, until)

TESTS = []
SLOW = os.path.join(os.path.dirname(VM), "slow.so")
UNIX = "unix:" + path("socket")


def test(function):
    TESTS.append(function)
    return function


def stray(data=b""):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    until(lambda: connects(sock))
    sock.sendall(data)
    return sock


@test
def receive_goes_on_after_strays():
    data = contents(40)
    with Held(A, data) as dev:
        receiving = receiver(UNIX)
        stray().close()
        # A second receiver sees that the socket is in use, by connecting to it
        err = run("receive", A, "--listen", UNIX, "--verify", status=None).stderr
        check("in use" in err, err)
        idle = [stray() for _ in range(3)]
        half = stray(hello()[:50])
        web = stray(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        kind, _ = recv_frame(web)
        check(kind == ERROR, "a web browser is not told", kind)
        # Its header is enough, nobody waits for the rest, or looks at it again and again
        early = stray(frame(DATA, b"x" * 1000)[:500])
        kind, why = recv_frame(early)
        check(kind == ERROR and b"DATA instead of HELLO" in why, kind, why)
        check(receiving.poll() is None, "it has ended")
        finish(start("send", dev.name, "--to", UNIX, "-q", fds=(dev.fd,)))
        _, err = finish(receiving)
        check(read_file("out") == data, "contents")
        check(err.count("is not from a source") == 2, err)
        for sock in (*idle, half, web, early):
            sock.close()


@test
def receive_has_enough_of_strays_at_last():
    receiving = receiver(UNIX, "--verify")
    count = 0
    while receiving.poll() is None and count < 3000:
        with socket.socket(socket.AF_UNIX) as sock:
            count += sock.connect_ex(path("socket")) == 0
    check(1000 <= count < 1100, f"{count} connections")
    err = finish(receiving, 4)[1]
    check("none was from a source" in err, err)
    check(not os.path.exists(path("socket")), "the socket is still there")


@test
def silent_strays_do_not_outlast_the_timeout():
    receiving = receiver(UNIX, "--verify", "--timeout", "0.5")
    sock = stray()
    check(recv_frame(sock)[0] == ERROR, "it was not closed")
    receiving.send_signal(15)
    check("has not sent HELLO in time" in finish(receiving, 143)[1])


@test
def ports_are_checked_with_the_command_line():
    for args in ("send", A, "--to", "localhost:70000"), ("receive", B, "--verify", "--listen", "localhost:65536"):
        err = run(*args, status=2).stderr
        check(args[-2] in err and "65535" in err, err)


def slow(number, *args, fds=()):
    if os.path.exists(path("go on")):
        os.unlink(path("go on"))
    env = dict(os.environ, LD_PRELOAD=SLOW, SLOW_STATE=str(number), SLOW_UNTIL=path("go on"))
    return subprocess.Popen([VM, *args], pass_fds=fds, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=env)


def long_in(number, at_source, tcp):
    """One side changes to a state until the other has heard 12 signs of life: more than two timeouts."""
    data = contents(41)
    with Held(A, data) as dev:
        proxy = Proxy(0, True, "", tcp)
        sending = ("send", dev.name, "--to", proxy.address, "-q", "--timeout", "2")
        receiving = ("receive", B, "--listen", proxy.target, "--timeout", "2", "--dump-region", "2=" + path("out"))
        two = [slow(number, *sending, fds=(dev.fd,)) if at_source else start(*sending, fds=(dev.fd,)),
               start(*receiving) if at_source else slow(number, *receiving)]
        sign = (KEEPALIVE,) if at_source else (KEEPALIVE, STATUS)
        try:
            until(lambda: sum(proxy.seen.count(k) for k in sign) >= 12 or any(p.poll() is not None for p in two), 90)
            check(all(p.poll() is None for p in two), "one has ended:", *[p.stderr.read() for p in two if p.poll()])
        finally:
            lab.put(path("go on"), "")
        for process in two:
            finish(process)
        check(state(A) == "STOP" and read_file("out") == data, "contents")


@test
def peers_may_be_long_in_their_device():
    for number, at_source, tcp in ((6, True, False), (3, True, True), (3, True, False), (4, False, True),
                                   (1, False, False), (2, False, False), (2, False, True)):
        try:
            long_in(number, at_source, tcp)
        except AssertionError as err:
            raise AssertionError(f"state {number}, at the {'source' if at_source else 'target'}: {err}") from None


@test
def send_finds_a_receiver_at_a_name():
    data = contents(42)
    port = free_port().rpartition(":")[2]
    with Held(A, data) as dev:
        receiving = receiver("localhost:" + port)
        finish(start("send", dev.name, "--to", "localhost:" + port, "-q", fds=(dev.fd,)))
        finish(receiving)
        check(read_file("out") == data, "contents")


if __name__ == "__main__":
    sys.exit(lab.main(TESTS))
