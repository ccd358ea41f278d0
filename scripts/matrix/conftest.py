# SPDX-License-Identifier: GPL-2.0-only
"""
Fixtures of the matrix; run-matrix runs it, on a machine that has two QEMU, and four
devices that are bound to precopy-vfio-pci, and more in slots, which are switched off.
"""
import os
import shutil

import pytest
from pytest_tap import title

from livemig import book, matrix, matrixpage, migration, scene, ways
from livemig.vm import Failure

pytest_plugins = ["livemig.pytest_vms"]

# When each access of the guest is an exit to QEMU
SMALL_MIB = 1


def pytest_addoption(parser):
    parser.addoption("--only", metavar="NUMBERS", help="migrate only these VMs, comma-separated")
    parser.addoption("--book", metavar="FILE", help="keep all results there, and do what it lacks")
    parser.addoption("--page", metavar="FOLDER",
                     help="write the page of the documentation there when the book lacks nothing")


def pytest_configure(config):
    config.book = book.Book(config.option.book)


def pytest_collection_modifyitems(config, items):
    known = [item for item in items if config.book.right(title(item))]
    config.hook.pytest_deselected(items=known)
    items[:] = [item for item in items if item not in known]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    results, place = session.config.book, session.config.option.page
    if not place or session.config.option.collectonly:
        return
    if list(book.missing(results, matrix.ALL)) or \
       len(list(book.refused(results))) != len(matrix.REFUSALS) or \
       not all(book.seen(results, way, iommufd) for way in ways.ALL for iommufd in (False, True)):
        print("# something is missing, so there is no page")
        return
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
    for name, text in matrixpage.files(results, os.uname().release):
        with open(os.path.join(place, name), "w") as file:
            file.write(text)


@pytest.fixture(scope="session")
def devices():
    return os.environ.get("PRECOPY_CARRIERS", "").split()


@pytest.fixture(scope="session")
def pairs(devices):
    """Two pairs of devices; a VM moves from the first of a pair to the other, or back"""
    if len(devices) < 4:
        raise Failure("four devices must be bound to precopy-vfio-pci")
    return [dict(zip(("source", "target"), devices[at:at + 2])) for at in (0, 2)]


@pytest.fixture(scope="session")
def spare(devices):
    """Those in slots that are still there: an earlier run in this L1 may have lost some"""
    return [bdf for bdf in devices[4:] if migration.is_there(bdf)]


@pytest.fixture(scope="module")
def trip(request):
    """A VM"""
    return request.param


@pytest.fixture(scope="module")
def traveller(trip, common, pairs, request, tmp_path_factory):
    """Migrates this VM, and boots it anew after a failure"""
    folder = tmp_path_factory.mktemp("vm")
    scene.small([bdf for pair in pairs for bdf in pair.values()],
                SMALL_MIB if trip.no_mmap else matrix.MEMORY_MIB)
    found = matrix.Traveller(common, pairs, str(folder))
    yield found
    found.end()
    # All of it is much, unless somebody has asked for it.
    if not request.config.option.basetemp:
        shutil.rmtree(folder)
