# SPDX-License-Identifier: GPL-2.0-only
"""A source, a target or a device fails while it moves."""

import signal
import time

import pytest

from lab import (A, B, SIZE, Delay, Held, Knob, finish, get, info, put, read_file, run, start, starting,
                 state, sysfs, transfer, unix, until)

# Of a device that takes much longer to start than anybody waits here
LONG_MS, WAIT = 60000, 30


@pytest.mark.parametrize("number, status", [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_target_ended_while_it_starts(dev, data, number, status):
    with Delay(B, LONG_MS):
        receiving, sending = transfer(dev, unix())
        until(starting)
        assert state(A) == "PRE_COPY"
        receiving.send_signal(number)
        err = finish(sending, 4, WAIT)[1]
        finish(receiving, status, WAIT)
    assert "nothing of it is lost" in err
    assert state(A) == "RUNNING" and dev.read() == data


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_source_interrupted_while_it_waits(dev, data, number, status):
    with Delay(B, LONG_MS):
        receiving, sending = transfer(dev, unix())
        until(starting)
        # In the middle of a frame it could not say why.
        until(lambda: get(sysfs(A, "precopy/initial_bytes")) == "0")
        time.sleep(0.1)
        sending.send_signal(number)
        finish(sending, status, WAIT)
        err = finish(receiving, 4, WAIT)[1]
    assert "interrupted" in err, "the target does not know"
    assert state(A) == "RUNNING" and dev.read() == data


def test_source_killed_while_it_waits(dev, data):
    with Delay(B, LONG_MS):
        receiving, sending = transfer(dev, unix())
        until(starting)
        sending.kill()
        finish(sending, -9)
        finish(receiving, 4, WAIT)
        assert state(A) == "PRE_COPY"
    receiving, sending = transfer(dev, unix())
    assert "did not end" in finish(sending)[1], "it does not say so"
    finish(receiving)
    assert read_file("out") == data


def test_target_that_takes_too_long(dev, data):
    with Delay(B, LONG_MS):
        receiving, sending = transfer(dev, unix(), "--ack-timeout", "0.5")
        assert "has not started" in finish(sending, 4, WAIT)[1]
        finish(receiving, 4, WAIT)
    assert state(A) == "RUNNING" and dev.read() == data


def test_move_interrupted(dev, data):
    with Delay(B, LONG_MS):
        moving = start("move", dev.name, B, "--verify", fds=(dev.fd,))
        until(starting)
        moving.send_signal(signal.SIGINT)
        finish(moving, 130, WAIT)
    assert state(A) == "RUNNING" and dev.read() == data
    assert info(B)["can_migrate"], "the target stays busy"


def test_move_to_a_smaller_device(data):
    put(sysfs(B, "precopy/memory_size"), SIZE // 2)
    try:
        with Held(A, data) as dev:
            err = run("move", dev.name, B, "--verify", status=3, fds=(dev.fd,)).stderr
            assert "the memory differs" in err
            assert state(A) == "RUNNING" and dev.read() == data
    finally:
        put(sysfs(B, "precopy/memory_size"), SIZE)


def injected(dev, data, knob, sender_status, receiver_status, *args):
    with knob:
        receiving, sending = transfer(dev, unix(), *args)
        finish(sending, sender_status)
        finish(receiving, receiver_status)
    assert state(A) == "RUNNING" and dev.read() == data
    assert info(B)["can_migrate"]


stop_copy = pytest.mark.parametrize("how", [(), ("--stop-copy",)], ids=["pre-copy", "stop-copy"])


@stop_copy
@pytest.mark.parametrize("at", [1, 100000])
def test_source_cannot_be_read(dev, data, at, how):
    injected(dev, data, Knob(A, "fail_save_at", at), 1, 4, *how)


@stop_copy
@pytest.mark.parametrize("at", [1, 100000])
def test_target_cannot_be_written(dev, data, at, how):
    injected(dev, data, Knob(B, "fail_load_at", at), 4, 1, *how)


@pytest.mark.parametrize("how", [(), ("--optimize", "total-time")], ids=["pre-copy", "total-time"])
def test_target_cannot_start(dev, data, how):
    injected(dev, data, Knob(B, "startup_fail", 12), 4, 1, *how)
