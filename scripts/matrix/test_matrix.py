# SPDX-License-Identifier: GPL-2.0-only
"""
A VM with our devices migrates in every way that QEMU has, and QEMU refuses what it
must refuse.
"""
import time

import pytest

from livemig import book, matrix, matrixpage


def cells(option):
    """All migrations, each after the number of its VM"""
    trips = matrix.SHORT if option.short else matrix.ALL
    numbers = map(int, option.only.split(",")) if option.only else range(len(trips))
    for number in numbers:
        for cell in trips[number].cells:
            words = [str(number), cell.source, cell.target, *cell.transport.split(", "),
                     "ack" if cell.ack else "noack"]
            yield pytest.param(trips[number], cell, id="-".join(words),
                               marks=pytest.mark.title(book.title(trips[number], cell)))


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize(("trip", "cell"), cells(metafunc.config.option), indirect=["trip"],
                             scope="module")


@pytest.mark.parametrize("refusal", [
    pytest.param(refusal, id=book.refusal_title(refusal).replace(" ", "-"),
                 marks=pytest.mark.title(book.refusal_title(refusal)))
    for refusal in matrix.REFUSALS])
def test_refusal(common, pairs, pytestconfig, tmp_path, record_property, refusal):
    said, wrong = matrix.try_refusal(refusal, common, pairs[0], str(tmp_path))
    pytestconfig.book.add(book.refusal_title(refusal), [wrong] if wrong else [], said=said)
    record_property("QEMU says", said)
    assert not wrong


def test_migration(traveller, pytestconfig, record_property, trip, cell):
    began = time.monotonic()
    result = traveller.one(trip, cell, lambda text: print(
        f"# {time.monotonic() - began:5.1f} s  {text}", flush=True))
    book.add_result(pytestconfig.book, result)
    record_property("seen", matrixpage.numbers(result))
    assert not result.wrong
