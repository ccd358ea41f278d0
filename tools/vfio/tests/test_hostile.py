# SPDX-License-Identifier: GPL-2.0-only
"""Peers that misbehave."""

import os
import re
import socket
import struct
import time

import pytest

from lab import (A, ACK, B, DATA, END, ERROR, GO, HELLO, KEEPALIVE, MARK, READY, RUNNING, STATUS, Clock,
                 connects, finish, frame, hello, info, memory_kib, path, receiver, recv_frame, run, start,
                 state, unix, until)

# What a peer can make the other side allocate at most
MEMORY_KIB = 20000


def attack_target(attack, status, *args, timeout="10"):
    """What a target says that is attacked until it ends"""
    receiving = receiver(unix(), "--verify", "--timeout", timeout, *args, **Clock.env())
    with socket.socket(socket.AF_UNIX) as sock:
        until(lambda: connects(sock))
        sock.settimeout(30)
        try:
            attack(sock, receiving)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return finish(receiving, status)[1]


def begin(sock):
    """As a source does; the target answers when it has taken note"""
    sock.sendall(hello())
    assert recv_frame(sock)[0] == HELLO


# --- Who is not a source -----------------------------------------------------------------

def garbage(sock):
    sock.sendall(os.urandom(1 << 20))


def silent(_sock):
    pass


def trickle(sock):
    for byte in hello():
        sock.sendall(bytes([byte]))
        time.sleep(0.1)


def other_version(sock):
    sock.sendall(frame(HELLO, bytes(80), version=2))


@pytest.mark.parametrize("attack, timeout, word", [
    (garbage, "10", "not from vfio-migrate"), (silent, "0.5", "HELLO in time"),
    (trickle, "0.5", "HELLO in time"), (other_version, "10", "another version")])
def test_target_turns_away(attack, timeout, word):
    said = []

    def until_turned_away(sock, receiving):
        try:
            attack(sock)
        except (BrokenPipeError, ConnectionResetError):
            pass
        while "is not from a source" not in (line := receiving.stderr.readline()):
            assert line, "the target has ended"
            said.append(line)
        said.append(line)
        Clock.run_fast()     # nobody else comes

    attack_target(until_turned_away, 4, "--accept-timeout", "30", timeout=timeout)
    assert word in "".join(said)


# --- Sources that misbehave ---------------------------------------------------------------

def oversize(sock, _):
    sock.sendall(hello() + frame(DATA, b"", 1, length=0xffffffff))


def trickled_data(sock, receiving):
    begin(sock)
    sock.sendall(frame(DATA, b"x" * 100, 1)[:24])
    for _ in range(20):
        sock.sendall(b"x")
        time.sleep(0.02)
    assert receiving.poll() is None
    Clock.run_fast()


def flood(sock, receiving):
    begin(sock)
    for batch in range(100):
        sock.sendall(b"".join(frame(KEEPALIVE, b"", 1 + batch * 100 + i) for i in range(100)))
    assert memory_kib(receiving.pid) < MEMORY_KIB


def bad_stream(sock, receiving):
    sock.sendall(hello() + frame(DATA, b"not a stream" * 100, 1))
    kind, text = recv_frame(sock)
    while kind not in (ERROR, None):
        kind, text = recv_frame(sock)
    assert kind == ERROR and b"does not accept" in text
    assert memory_kib(receiving.pid) < MEMORY_KIB


def go_at_once(sock, _):
    sock.sendall(hello() + frame(GO, b"", 1))


def end_too_early(sock, _):
    sock.sendall(hello() + frame(END, struct.pack("<QQ", 1000, 0), 1))


@pytest.mark.parametrize("attack, timeout, word", [
    (oversize, "10", "length that it cannot have"),
    (trickled_data, "10", "nothing was heard|nothing but signs of life"),
    (flood, "2", "nothing was heard"), (bad_stream, "10", "does not accept the stream"),
    (go_at_once, "10", "not ready"), (end_too_early, "10", "something is missing")])
def test_target_refuses(attack, timeout, word):
    err = attack_target(attack, 1 if attack == bad_stream else 4, timeout=timeout)
    assert re.search(word, err)
    assert info(B)["can_migrate"]


def test_source_that_is_only_alive():
    def only_alive(sock, receiving):
        sock.sendall(hello())
        sequence = 1
        while receiving.poll() is None:
            sock.sendall(frame(KEEPALIVE, b"", sequence))
            sequence += 1
            time.sleep(0.03)

    for _ in range(5):      # this process may be silent for so long
        err = attack_target(only_alive, 4, timeout="0.2")
        if "nothing was heard" not in err:
            break
    assert "nothing but signs of life" in err


def test_nobody_connects():
    err = run("receive", B, "--listen", unix(), "--verify", "--accept-timeout", "0.2", status=4).stderr
    assert "nobody has connected" in err


# --- Targets that misbehave ---------------------------------------------------------------

def attack_source(dev, attack, timeout):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path("socket"))
        listener.listen(1)
        sending = start("send", dev.name, "--to", unix(), "--timeout", timeout, fds=(dev.fd,), **Clock.env())
        sock, _ = listener.accept()
    with sock:
        sock.settimeout(30)
        try:
            attack(sock, sending)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return finish(sending, 4)[1]


def deaf(sock, sending):
    begin(sock)
    # The source has begun when its device is in pre-copy; it takes no more than that.
    until(lambda: state(A) == "PRE_COPY")
    assert memory_kib(sending.pid) < MEMORY_KIB
    Clock.run_fast()


def flood_of_status(sock, sending):
    sock.sendall(hello())
    for batch in range(50):
        sock.sendall(b"".join(frame(STATUS, bytes(40), 1 + batch * 100 + i) for i in range(100)))
    assert sending.poll() is not None or memory_kib(sending.pid) < MEMORY_KIB


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


def garbage_back(sock, _):
    garbage(sock)


def ack_without_writing(sock, _):
    sock.sendall(hello())
    kind, data = 0, b""
    while kind != MARK:
        kind, data = recv_frame(sock)
    sock.sendall(frame(ACK, struct.pack("<QI4x", 0, struct.unpack_from("<I", data, 32)[0]), 1))


def escapes(sock, _):
    sock.sendall(hello() + frame(ERROR, b"\x1b[2Jgone", 1))


@pytest.mark.parametrize("attack, timeout, word", [
    (garbage_back, "10", "not from vfio-migrate"), (deaf, "10", "nothing was heard|takes nothing"),
    (flood_of_status, "2", "nothing was heard"), (ack_of_nothing, "10", "nothing to acknowledge"),
    (too_much_written, "10", "more than was sent"), (ready_at_once, "10", "has not ended"),
    (running_at_once, "10", "was not told to run"), (data_back, "10", "data to the source"),
    (ack_without_writing, "10", "less than the mark"), (escapes, "10", r"\?\[2Jgone")])
def test_source_refuses(source, attack, timeout, word):
    err = attack_source(source, attack, timeout)
    assert re.search(word, err) and "\x1b[2Jgone" not in err
    assert state(A) == "RUNNING"


def test_nobody_listens(source):
    run("send", source.name, "--to", "unix:/nonexistent/socket", "--timeout", "0.2", status=4, fds=(source.fd,))
    assert state(A) == "RUNNING"
