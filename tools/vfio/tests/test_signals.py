# SPDX-License-Identifier: GPL-2.0-only
"""A signal ends vfio-migrate: nothing is lost, and nothing is left."""

import os
import signal

import pytest

from lab import A, B, Delay, ended, output, path, popen, starting, state, until

ENDING = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2,
          signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO,
          signal.SIGPWR, signal.SIGRTMIN]
NAMES = [number.name for number in ENDING]


@pytest.mark.parametrize("number", ENDING, ids=NAMES)
def test_after_a_signal_the_source_runs(source, number):
    # Nobody reads what it writes, so it stands still
    saving = popen("save", source.name, "-q", "--stop-copy", fds=(source.fd,))
    until(lambda: state(A) == "STOP_COPY")
    saving.send_signal(number)
    ended(saving, 128 + number)
    assert state(A) == "RUNNING"


# Each signal ends one of the two
@pytest.mark.parametrize("number, how", [(number, (("--stop-copy",), ())[i % 2]) for i, number in enumerate(ENDING)],
                         ids=NAMES)
def test_after_a_signal_no_file_is_left(source, number, how):
    output()
    with Delay(B, 60000):
        moving = popen("move", source.name, B, *how, "--dump-region", "2=" + path("place/out"), fds=(source.fd,))
        until(starting)
        moving.send_signal(number)
        ended(moving, 128 + number)
    assert state(A) == "RUNNING"
    assert not os.listdir(path("place"))
