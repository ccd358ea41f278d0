# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the tests of vfio-migrate; lab.py tells how to run them."""

import os
import zlib

import pytest

if not os.environ.get("VFIO_MIGRATE") or len(os.environ.get("PRECOPY_CARRIERS", "").split()) < 2:
    raise pytest.UsageError("VFIO_MIGRATE and PRECOPY_CARRIERS must be set: see lab.py")

pytest.register_assert_rewrite("lab")
import lab  # noqa: E402 (to be imported after that)


@pytest.fixture(autouse=True, scope="session")
def sizes(tmp_path_factory):
    """Both devices have memory of a size that is moved fast"""
    lab.Place.folder = str(tmp_path_factory.mktemp("shared"))
    for bdf in lab.A, lab.B:
        lab.put(lab.sysfs(bdf, "precopy/memory_size"), lab.SIZE)


@pytest.fixture(autouse=True)
def own_folder(tmp_path):
    """A directory for the files of a test"""
    shared, lab.Place.folder = lab.Place.folder, str(tmp_path)
    yield tmp_path
    lab.Place.folder = shared
    for path in tmp_path.iterdir():
        if path.is_file():
            path.unlink()


@pytest.fixture
def data(request):
    """Contents for a device, which no other test has"""
    return lab.contents(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def dev(data):
    """Device A with these contents, open and running as a VM's would be"""
    with lab.Held(lab.A, data) as held:
        yield held


@pytest.fixture(scope="module")
def held():
    """Device A and its contents, open for all tests of a file"""
    data = lab.contents(1)
    with lab.Held(lab.A, data) as dev:
        yield dev, data


@pytest.fixture
def source(held):
    """As dev, but not opened for each test; afterwards nothing of it must be lost"""
    dev, data = held
    yield dev
    stopped = lab.state(lab.A)
    if stopped != "RUNNING":
        lab.run("run", dev.name, fds=(dev.fd,))
    assert dev.read() == data, f"other contents, after {stopped}"
