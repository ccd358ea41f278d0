# SPDX-License-Identifier: GPL-2.0-only
"""The line between a source and a target spoils the first frame of each type."""

import pytest

from lab import (A, ACK, B, DATA, END, ERROR, GO, HELLO, KEEPALIVE, MARK, NAMES, READY, RUNNING, STATUS,
                 Clock, Delay, Knob, Proxy, finish, start, state)

# In which a peer must be heard of, seconds
TIMEOUT = 10

# The frame that is spoiled, and the status of source and target. GO is where there is
# no way back: only from there on the source stays stopped.
PLACES = [
    (HELLO, True, 4, (4, 3)), (DATA, True, 4, (4, 1)), (MARK, True, 4, (4,)), (END, True, 4, (4,)),
    (GO, True, 6, (4,)),
    (HELLO, False, 4, (4,)), (STATUS, False, 4, (4,)), (ACK, False, 4, (4,)), (READY, False, 4, (4,)),
    (RUNNING, False, 6, (0,)),
]
# After GO and RUNNING nobody listens any more.
REPEATED = [(*place[:2], 0, (0,)) if place[0] in (GO, RUNNING) else place for place in PLACES]
# Another STATUS follows, and without HELLO a target waits for another source.
SWALLOWED = [place for place in PLACES if place[0] not in (STATUS, HELLO)]

# How a connection ends depends on its kind, what is in frames does not.
FAULTS = [
    ("cut", PLACES, "unix"), ("cut", PLACES, "tcp"), ("half", PLACES, "tcp"), ("damage", PLACES, "unix"),
    ("repeat", REPEATED, "tcp"), ("silence", SWALLOWED, "unix"),
]


def name_of(fault, place, kind):
    return f"{fault}-{NAMES[place[0]]}-{'to' if place[1] else 'from'}-target-{kind}"


def spoil(dev, place, fault, tcp, timeout=TIMEOUT):
    kind, to_target, source_status, target_status = place

    limit, clock = ("--timeout", str(timeout)), Clock.env()
    proxy = Proxy(kind, to_target, fault, tcp, silenced=Clock.run_fast)
    # A peer without HELLO is not a source: the target waits for one that is.
    wait = ("--accept-timeout", "3") if kind == HELLO and to_target and fault != "repeat" else ()
    receiving = start("receive", B, "--listen", proxy.target, "--verify", *limit, *wait, **clock)
    sending = start("send", dev.name, "--to", proxy.address, *limit, "-q", fds=(dev.fd,), **clock)
    try:
        finish(sending, source_status, 60)
        finish(receiving, target_status, 60)
    finally:
        proxy.hang_up()
    assert proxy.happened, "there was no such frame"
    # The target has everything when it says READY, but runs only when it is told to.
    expected = {READY: "STOP", GO: "STOP", RUNNING: "RUNNING"}.get(kind, proxy.target_state)
    assert proxy.target_state == expected, f"target in {proxy.target_state}"
    home = "STOP" if source_status in (0, 6) else "RUNNING"
    assert state(A) == home, f"source in {state(A)}"
    return sending, receiving


@pytest.mark.parametrize("fault, place, kind", [
    pytest.param(fault, place, kind, id=name_of(fault, place, kind))
    for fault, places, kind in FAULTS for place in places])
def test_spoiled(source, fault, place, kind):
    for process in spoil(source, place, fault, tcp=kind == "tcp"):
        # A status of 0 is that of a target that runs already.
        if fault == "silence" and process.returncode:
            silent = Clock.heard_nothing(process)
            assert TIMEOUT <= silent < 5 * TIMEOUT, f"{process.args} has waited {silent} s"


@pytest.mark.parametrize("fault", ["cut", "half", "damage", "repeat"])
def test_sign_of_life(source, fault):
    # It comes only while the target takes long. That it does not come is among the
    # tests of peers.
    with Delay(B, 20000):
        spoil(source, (KEEPALIVE, True, 4, (4,)), fault, tcp=False, timeout=5)


@pytest.mark.parametrize("fault", ["cut", "half", "damage", "repeat"])
def test_error(source, fault):
    with Knob(B, "startup_fail", 12):
        spoil(source, (ERROR, False, 4, (1,)), fault, tcp=True)
