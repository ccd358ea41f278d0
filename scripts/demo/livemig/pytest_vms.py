# SPDX-License-Identifier: GPL-2.0-only
"""
Options and fixtures of tests that migrate VMs, as a plugin of pytest.

scripts/testbed/run-pytest runs such tests, usually in the test bed's L1.
"""
from __future__ import annotations

import pytest

from . import migration, vm


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("VMs that migrate")
    group.addoption("--kernel", default="/bed/kernel/arch/x86/boot/bzImage",
                    help="what the VM boots")
    group.addoption("--initrd", help="what build-guest made")
    group.addoption("--patience", type=float, default=1.0,
                    help="factor for all time limits (default: 1)")
    group.addoption("--short", action="store_true", help="only the tests that tell most")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: not run with --short")
    vm.patience = config.getoption("patience")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("short"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def common(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the Setup of each VM has in common"""
    kvm = migration.kvm_works(str(tmp_path_factory.mktemp("kvm")))
    return {"kernel": pytestconfig.getoption("kernel"),
            "initrd": pytestconfig.getoption("initrd"), "accel": "kvm" if kvm else "tcg"}
