# SPDX-License-Identifier: GPL-2.0-only
"""Each fault that is known, once. The VM must be right afterwards."""
import pytest

from livemig import faults


def parameter(fault):
    marks = [pytest.mark.title(fault.__doc__.strip())]
    if fault not in faults.SHORT:
        marks.append(pytest.mark.long)
    return pytest.param(fault, id=fault.__name__, marks=marks)


@pytest.mark.parametrize("fault", map(parameter, faults.ALL))
def test_fault(happen, fault):
    happen(fault)
