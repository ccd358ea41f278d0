# SPDX-License-Identifier: GPL-2.0-only
"""move, send and receive, when all goes well."""

import json
import os
import time

import pytest

from lab import (A, ACK, B, MARK, SIZE, Delay, Held, Hold, Knob, Proxy, Writer, contents, finish, free_port,
                 info, path, put, read_file, receiver, run, start, starting, state, sysfs, transfer, unix,
                 until, write_file)


@pytest.mark.parametrize("iommu", ["type1", "iommufd", "auto"])
def test_move_by(data, iommu):
    got = run("move", A, B, "--iommu", iommu, "--json", "--fill-region", "2=" + write_file("in", data),
              "--dump-region", "2=" + path("out"))
    assert read_file("out") == data
    numbers = json.loads(got.stdout)
    assert numbers["acked_while_running"] and numbers["bytes"]["stopped"] < 10000
    assert numbers["bytes"]["total"] == sum(numbers["bytes"][k] for k in ("initial", "dirty", "stopped"))


def test_move_that_makes_no_sense():
    run("move", A, A, "--verify", "--iommu", "iommufd", status=3)
    run("move", A, B, "--verify", "--", "x", status=2)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_send_waits_for_a_slow_target(dev, tcp):
    address = free_port() if tcp else unix()
    with Delay(B, 2000):
        receiving, sending = transfer(dev, address)
        until(starting)
        # It runs on, and what it writes meanwhile arrives.
        with Hold(B):
            for number in range(20):
                assert state(A) == "PRE_COPY"
                dev.write(number * 70000 % SIZE, os.urandom(5000))
                time.sleep(0.02)
        numbers = json.loads(finish(sending)[0])
        finish(receiving)
    assert read_file("out") == dev.read()
    assert state(A) == "STOP"
    assert "moved already" in run("send", dev.name, "--to", address, status=3, fds=(dev.fd,)).stderr
    assert numbers["acked_while_running"] and numbers["ack_wait_ns"] > 0
    assert numbers["bytes"]["dirty"] + numbers["bytes"]["stopped"] > 10000
    assert not os.path.exists(path("socket")), "the socket is still there"


def test_stop_copy_pays_while_stopped():
    with Delay(B, 1000):
        got = run("move", A, B, "--stop-copy", "--verify", "--json", "--fill-region",
                  "2=" + write_file("in", contents(9)))
    numbers = json.loads(got.stdout)
    assert numbers["downtime_ns"] > 0.95e9 and not numbers["acked_while_running"], numbers
    assert numbers["bytes"]["initial"] == 0, numbers


def test_total_time_does_not_wait_for_the_target():
    with Held(A, contents(10)) as dev, Delay(B, 1500):
        with Writer(dev):
            receiving, sending = transfer(dev, unix(), "--optimize", "total-time")
            numbers = json.loads(finish(sending)[0])
        finish(receiving)
        assert not numbers["acked_while_running"] and numbers["downtime_ns"] > 0.8e9, numbers


def test_a_bound_that_cannot_be_kept():
    with Held(A, contents(11)) as dev:
        with Writer(dev):
            receiving, sending = transfer(dev, unix(), "--max-downtime", "2")
            err = finish(sending, 5)[1]
        assert "written anew" in err, err
        finish(receiving, 4)
        assert state(A) == "RUNNING", state(A)
        # And now that nobody writes, one that can
        receiving, sending = transfer(dev, unix(), "--max-downtime", "2000")
        finish(sending)
        finish(receiving)
        assert read_file("out") == dev.read(), "contents"


def test_a_bound_without_pre_copy():
    with Knob(A, "no_precopy", "Y"), Held(A, contents(24)) as dev:
        receiving, sending = transfer(dev, unix(), "--max-downtime", "5000")
        err = finish(sending, 5)[1]
        assert "no downtime can be promised" in err, err
        finish(receiving, 4)
        assert state(A) == "RUNNING", state(A)
        numbers = json.loads(run("move", dev.name, B, "--verify", "--json", fds=(dev.fd,)).stdout)
        assert numbers["bytes"]["initial"] == 0 and state(A) == "STOP", numbers


def test_a_device_that_gives_much_more_than_it_announced():
    # So it looks if somebody never ceases to store to it: that would be a race
    large = 64 << 20
    try:
        for bdf in A, B:
            put(sysfs(bdf, "precopy/memory_size"), large)
        args = A, B, "--verify", "--fill-region", "2=" + write_file("large", os.urandom(40 << 20))
        with Knob(A, "data_size", 1):
            err = run("move", *args, "--stop-copy", status=1).stderr
            assert "still store to it" in err and "nothing of it is lost" in err, err
            run("move", *args)
        run("move", *args, "--stop-copy")
    finally:
        for bdf in A, B:
            put(sysfs(bdf, "precopy/memory_size"), SIZE)


def test_total_time_waits_if_that_costs_nothing():
    if info(A)["startup"] is None:
        pytest.skip("the driver tells nothing of startups")
    with Delay(B, 1500):
        got = run("move", A, B, "--verify", "--json", "--optimize", "total-time", "--fill-region",
                  "2=" + write_file("in", contents(19)))
    numbers = json.loads(got.stdout)
    # Nobody writes: it runs on nearly until the target is ready
    assert numbers["ack_wait_ns"] > 1e9 and numbers["downtime_ns"] < numbers["ack_wait_ns"], numbers


def test_startup_that_begins_anew():
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
        assert read_file("out") == dev.read(), "contents"
        marks = proxy.seen.count(MARK)
        assert marks == 2 and ACK in proxy.seen, f"{marks} marks"
        assert numbers["acked_while_running"], numbers
