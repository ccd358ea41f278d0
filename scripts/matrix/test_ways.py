# SPDX-License-Identifier: GPL-2.0-only
"""What else QEMU does to a VM with our device, by type1 and by iommufd."""
import pytest

from livemig import book, migration, scene, vm, ways

CASES = [(way, iommufd) for way in ways.ALL for iommufd in (False, True)]


@pytest.fixture
def stage(common, pairs, tmp_path):
    """A Scene, with a VM of the kind that a way needs"""
    setup = migration.Setup(carrier=pairs[0], in_use_mib=ways.IN_USE_MIB, **common)
    found = scene.Scene(setup, str(tmp_path))
    yield found
    found.close()


@pytest.mark.parametrize(("way", "iommufd"), [
    pytest.param(way, iommufd, id=f"{way.__name__}-{'iommufd' if iommufd else 'type1'}",
                 marks=[pytest.mark.title(book.way_title(way, iommufd))]
                 + [pytest.mark.long] * ((way, iommufd) not in ways.SHORT))
    for way, iommufd in CASES])
def test_way(stage, spare, pytestconfig, record_property, way, iommufd):
    if way in ways.LOSES_SOURCE and not spare:
        pytest.skip("no device in a slot is left")
    said, wrong = vm.despite_loss(lambda: ways.one(stage, way, iommufd, spare),
                                  lambda text: record_property("seen", text))
    pytestconfig.book.add(book.way_title(way, iommufd), [wrong] if wrong else [], said=said)
    record_property("seen", said)
    assert not wrong
