# SPDX-License-Identifier: GPL-2.0-only
"""Strays that connect before the source does, and a peer whose device keeps it for long."""

import os
import socket

import pytest

from lab import (A, B, DATA, ERROR, KEEPALIVE, SLOW, STATUS, Held, Proxy, connects, contents, finish, frame,
                 free_port, hello, path, put, read_file, receiver, recv_frame, run, start, state, unix, until)


def stray(data=b""):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    until(lambda: connects(sock))
    sock.sendall(data)
    return sock


def test_receive_goes_on_after_strays():
    data = contents(40)
    with Held(A, data) as dev:
        receiving = receiver(unix())
        stray().close()
        # A second receiver sees that the socket is in use, by connecting to it
        err = run("receive", A, "--listen", unix(), "--verify", status=None).stderr
        assert "in use" in err, err
        idle = [stray() for _ in range(3)]
        half = stray(hello()[:50])
        web = stray(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        kind, _ = recv_frame(web)
        assert kind == ERROR, ("a web browser is not told", kind)
        # Its header is enough, nobody waits for the rest, or looks at it again and again
        early = stray(frame(DATA, b"x" * 1000)[:500])
        kind, why = recv_frame(early)
        assert kind == ERROR and b"DATA instead of HELLO" in why, (kind, why)
        assert receiving.poll() is None, "it has ended"
        finish(start("send", dev.name, "--to", unix(), "-q", fds=(dev.fd,)))
        _, err = finish(receiving)
        assert read_file("out") == data, "contents"
        assert err.count("is not from a source") == 2, err
        for sock in (*idle, half, web, early):
            sock.close()


def test_receive_has_enough_of_strays_at_last():
    receiving = receiver(unix(), "--verify")
    count = 0
    while receiving.poll() is None and count < 3000:
        with socket.socket(socket.AF_UNIX) as sock:
            count += sock.connect_ex(path("socket")) == 0
    assert 1000 <= count < 1100, f"{count} connections"
    err = finish(receiving, 4)[1]
    assert "none was from a source" in err, err
    assert not os.path.exists(path("socket")), "the socket is still there"


def test_silent_strays_do_not_outlast_the_timeout():
    receiving = receiver(unix(), "--verify", "--timeout", "0.5")
    sock = stray()
    assert recv_frame(sock)[0] == ERROR, "it was not closed"
    receiving.send_signal(15)
    assert "has not sent HELLO in time" in finish(receiving, 143)[1]


def test_ports_are_checked_with_the_command_line():
    for args in ("send", A, "--to", "localhost:70000"), ("receive", B, "--verify", "--listen", "localhost:65536"):
        err = run(*args, status=2).stderr
        assert args[-2] in err and "65535" in err, err


def slow(number, *args, fds=()):
    return start(*args, fds=fds, LD_PRELOAD=SLOW, SLOW_STATE=str(number), SLOW_UNTIL=path("go on"))


def ended(processes):
    return [p for p in processes if p.poll() is not None]


# How many signs of life must come: 12 take more than two timeouts.
FEW, MANY = 3, 12


@pytest.mark.parametrize("number, at_source, tcp, signs", [
    (6, True, False, FEW), (3, True, True, MANY), (3, True, False, FEW), (4, False, True, FEW),
    (1, False, False, FEW), (2, False, False, MANY), (2, False, True, FEW)])
def test_peer_may_be_long_in_its_device(dev, data, number, at_source, tcp, signs):
    """One side changes to a state until the other has heard so many signs of life"""
    proxy = Proxy(0, True, "", tcp)
    sending = ("send", dev.name, "--to", proxy.address, "-q", "--timeout", "2")
    receiving = ("receive", B, "--listen", proxy.target, "--timeout", "2", "--dump-region", "2=" + path("out"))
    two = [slow(number, *sending, fds=(dev.fd,)) if at_source else start(*sending, fds=(dev.fd,)),
           start(*receiving) if at_source else slow(number, *receiving)]
    kinds = (KEEPALIVE,) if at_source else (KEEPALIVE, STATUS)
    try:
        until(lambda: sum(proxy.seen.count(kind) for kind in kinds) >= signs or ended(two), 90)
        assert not ended(two), [p.stderr.read() for p in ended(two)]
    finally:
        put(path("go on"), "")
    for process in two:
        finish(process)
    assert state(A) == "STOP" and read_file("out") == data


def test_send_finds_a_receiver_at_a_name():
    data = contents(42)
    port = free_port().rpartition(":")[2]
    with Held(A, data) as dev:
        receiving = receiver("localhost:" + port)
        finish(start("send", dev.name, "--to", "localhost:" + port, "-q", fds=(dev.fd,)))
        finish(receiving)
        assert read_file("out") == data, "contents"
