# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the faults; run-faults runs them."""
import random

import pytest

from livemig import migration, scene, vm

pytest_plugins = ["livemig.pytest_vms"]

MEMORY_MIB = 16
IN_USE_MIB = 8


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, default=0, metavar="N",
                     help="N faults at random places, in test_rounds.py (default: 0)")
    parser.addoption("--seed", type=int, default=1, help="of all that is random (default: 1)")


@pytest.fixture(scope="session")
def stage(common, tmp_path_factory):
    """A VM, on one of two devices, that lives until a fault is not as it should be"""
    carrier = scene.carriers()
    scene.small(carrier.values(), MEMORY_MIB)
    setup = migration.Setup(carrier=carrier, in_use_mib=IN_USE_MIB, **common)
    found = scene.Scene(setup, str(tmp_path_factory.mktemp("vms")))
    yield found
    found.close()


@pytest.fixture
def happen(request, stage, record_property):
    """Lets a fault happen, and judges what has become of the VM"""
    seed = request.config.option.seed
    # The same for a test, whatever others run
    stage.seed = random.Random(f"{seed} {request.node.name}").randrange(1 << 30)
    record_property("seed", seed)

    def act(fault):
        vm.despite_loss(lambda: act_once(fault), lambda text: record_property("seen", text))

    def act_once(fault):
        try:
            if not stage.source:
                stage.boot()
            stage.mark()
            record_property("seen", fault(stage))
            wrong = stage.verdict()
            assert not wrong
        except BaseException as error:
            # Nothing is left of it then.
            for machine in stage.machines:
                print(f"{machine.name}: {machine.last_words()}")
            try:
                if isinstance(error, vm.Failure):
                    for machine in stage.machines:
                        machine.must_not_be_lost(error)
            finally:
                stage.close()
            raise

    return act
