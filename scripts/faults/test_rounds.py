# SPDX-License-Identifier: GPL-2.0-only
"""As many faults as --rounds says, at random places."""
import random

import pytest

from livemig import faults


def pytest_generate_tests(metafunc):
    option = metafunc.config.option
    picked = random.Random(option.seed).choices(faults.RANDOM, k=option.rounds)
    metafunc.parametrize("fault", [
        pytest.param(fault, id=f"{number}-{fault.__name__}",
                     marks=pytest.mark.title(fault.__doc__.strip()))
        for number, fault in enumerate(picked, 1)])


def test_round(happen, fault):
    happen(fault)
