# SPDX-License-Identifier: GPL-2.0-only
"""The line between a source and a target spoils the first frame of each type."""

import pytest

from lab import (A, ACK, B, CLOCK, DATA, END, ERROR, GO, HELLO, KEEPALIVE, MARK, NAMES, READY, RUNNING,
                 STATUS, Delay, Knob, Proxy, finish, path, start, state, write_file)

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


def name_of(place):
    return f"{NAMES[place[0]]}-{'to' if place[1] else 'from'}-target"


def on_all(places):
    return pytest.mark.parametrize("place", places, ids=name_of)


# How a connection ends depends on its kind, what is in frames does not.
over_both = pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])


def spoil(dev, place, fault, tcp, timeout="10"):
    kind, to_target, source_status, target_status = place

    def ahead():
        write_file("ahead", b"")

    clock = {"LD_PRELOAD": CLOCK, "CLOCK_AHEAD": path("ahead")}
    proxy = Proxy(kind, to_target, fault, tcp, silenced=ahead)
    # A peer without HELLO is not a source: the target waits for one that is.
    wait = ("--accept-timeout", "3") if kind == HELLO and to_target and fault != "repeat" else ()
    receiving = start("receive", B, "--listen", proxy.target, "--verify", "--timeout", timeout, *wait, **clock)
    sending = start("send", dev.name, "--to", proxy.address, "--timeout", timeout, "-q", fds=(dev.fd,), **clock)
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


@over_both
@on_all(PLACES)
def test_cut_before(source, place, tcp):
    spoil(source, place, "cut", tcp)


@on_all(PLACES)
def test_cut_within(source, place):
    spoil(source, place, "half", tcp=True)


@on_all(PLACES)
def test_damaged(source, place):
    spoil(source, place, "damage", tcp=False)


@on_all(REPEATED)
def test_repeated(source, place):
    spoil(source, place, "repeat", tcp=True)


@on_all(SWALLOWED)
def test_silence_instead_of(source, place):
    spoil(source, place, "silence", tcp=False)


@pytest.mark.parametrize("fault", ["cut", "half", "damage", "repeat"])
def test_sign_of_life(source, fault):
    # It comes only while the target takes long. That it does not come is among the
    # tests of peers.
    with Delay(B, 20000):
        spoil(source, (KEEPALIVE, True, 4, (4,)), fault, tcp=False, timeout="5")


@pytest.mark.parametrize("fault", ["cut", "half", "damage", "repeat"])
def test_error(source, fault):
    with Knob(B, "startup_fail", 12):
        spoil(source, (ERROR, False, 4, (1,)), fault, tcp=True)
