# SPDX-License-Identifier: GPL-2.0-only
"""
libvirt finds our driver, migrates a VM with our device between two of its own, and
saves, snapshots and dumps it.

Each test goes on from where the last one ended.
"""
import os
import subprocess

import pytest

from livemig import judge, migration
from livemig.vm import Failure

from hosts import DOMAIN, DRIVER, driver_of, is_zipped, nodedev, put
from play import AVAILABLE

DEFAULT_MIB = [16, 128]
title = pytest.mark.title


def pytest_generate_tests(metafunc):
    if "mib" in metafunc.fixturenames:
        sizes = metafunc.config.option.save_mib or DEFAULT_MIB
        if metafunc.cls is TestZipped:
            sizes = sizes[:1]
        metafunc.parametrize("mib", [
            pytest.param(mib, id=f"{mib}MiB", marks=[pytest.mark.long] * bool(number))
            for number, mib in enumerate(sizes)], scope="class")


@title("our module is installed, but not loaded")
def test_unloaded(play, seen):
    bound = f"/sys/bus/pci/drivers/{DRIVER}"
    for bdf in [name for name in os.listdir(bound) if ":" in name]:
        put(f"{bound}/unbind", bdf)
        put(f"/sys/bus/pci/devices/{bdf}/driver_override", "\n")
    subprocess.run(["rmmod", DRIVER], check=True)
    with open(f"/lib/modules/{os.uname().release}/modules.alias") as file:
        seen(next(line.strip() for line in file if line.startswith("alias vfio_pci:")
                  and "precopy" in line))


@title("two libvirtd run")
def test_daemons(play, seen):
    for host, known in (play.source, None), (play.target, play.source):
        host.start(known)
        host.wait_started()
    seen(play.source.virsh("version").replace("\n", ", "))


@title("nodedev-detach loads and binds our driver, because of its alias")
def test_detached(play, seen):
    host = play.source
    name = nodedev(host.bdf)
    host.virsh("nodedev-detach", name)
    assert driver_of(host.bdf) == DRIVER
    host.virsh("nodedev-reattach", name)
    assert driver_of(host.bdf) != DRIVER, "nodedev-reattach left it bound"
    seen(f"nodedev-detach {name}")


@pytest.mark.moves
class TestMoves:
    """virsh migrate, to a device that takes its time to start"""

    @title("a managed hostdev is bound to our driver when its domain starts")
    def test_start(self, play, seen):
        seen(play.start())

    @title("virsh migrate moves it, and of its own accord waits for the acknowledgment")
    def test_migrate(self, play, seen):
        move = play.move("--migrateuri", "unix://" + play.target.path("stream"))
        move.must_want(True)
        move.judge(judge.startup, judge.delay_taken, judge.acknowledged)
        seen(move.times())

    @title("virsh domjobinfo --completed knows how long it took")
    def test_job(self, play, seen):
        seen(play.job())

    @title("its guest finds every byte right there")
    def test_right(self, play, seen):
        seen(play.right())

    @title("through a tunnel it does not, not even when the capability was on before")
    def test_tunnel(self, play, seen):
        move = play.move("--p2p", "--tunnelled", before=lambda source: source.tell_qemu(
            "migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("return-path", "switchover-ack")]))
        move.must_want(False)
        move.judge(judge.startup, judge.delay_taken, judge.unasked)
        seen(move.times())

    @title("its guest finds every byte right there")
    def test_right_after_tunnel(self, play, seen):
        seen(play.right())


@pytest.mark.moves
@title("virsh detach-device and attach-device: the VM goes on, and an empty device comes")
def test_replug(play, seen):
    seen(play.replug())


def save_and_restore(play, way="bandwidth", paused=False):
    """virsh save, and restore; returns what was seen"""
    path = play.image()
    play.mark()
    play.allow_switchover(way)
    if paused:
        play.source.virsh("suspend", DOMAIN)
    took = play.run("save", DOMAIN, path)
    size = os.path.getsize(path) >> 20
    assert is_zipped(path) == play.source.zips, "the image is not in qemu.conf's format"
    play.restore(path)
    if paused:
        play.state_must_be("paused")
        play.source.virsh("resume", DOMAIN)
    play.attach_again()
    play.image()
    return f"{took:.1f} s, {size} MiB; " + play.right()


class TestSaves:
    """Commands that write the VM's state, with so much of the device in use"""

    @title("a VM starts, {mib} MiB in use")
    def test_start(self, play, seen, mib):
        seen(play.start_anew(mib << 10))

    @pytest.mark.long
    @title("virsh save, restore, {mib} MiB in use")
    def test_save(self, play, seen, mib):
        seen(save_and_restore(play))

    @title("virsh save of a paused VM, restore, {mib} MiB in use")
    def test_save_paused(self, play, seen, mib):
        seen(save_and_restore(play, paused=True))

    @pytest.mark.long
    @title("virsh save after migrate-setmaxdowntime, {mib} MiB in use")
    def test_save_by_downtime(self, play, seen, mib):
        seen(save_and_restore(play, way="downtime"))

    @pytest.mark.long
    @title("virsh managedsave, start, {mib} MiB in use")
    def test_managedsave(self, play, seen, mib):
        took = play.run_marked("managedsave", DOMAIN)
        play.answer_later()
        play.source.virsh("start", DOMAIN)
        play.attach_again()
        seen(f"{took:.1f} s; " + play.right())

    @pytest.mark.long
    @title("virsh snapshot-create-as --memspec, restore, {mib} MiB in use")
    def test_snapshot(self, play, seen, mib):
        """The VM goes on, and its past can be restored"""
        path = play.image()
        took = play.run_marked("snapshot-create-as", DOMAIN, "past", "--memspec",
                               f"file={path},snapshot=external")
        said = play.right()
        play.source.virsh("snapshot-delete", DOMAIN, "past", "--metadata")
        play.source.virsh("destroy", DOMAIN)
        play.restore(path)
        play.attach_again()
        play.image()
        seen(f"{took:.1f} s; before: {said}; after: " + play.right())

    @pytest.mark.long
    @pytest.mark.parametrize("options", [
        pytest.param((), marks=title("virsh dump, {mib} MiB in use"), id="all"),
        pytest.param(("--memory-only",), marks=title("virsh dump --memory-only, {mib} MiB in use"),
                     id="memory")])
    def test_dump(self, play, seen, mib, options):
        """The VM goes on"""
        path = play.image()
        took = play.run_marked("dump", DOMAIN, path, *options)
        size = os.path.getsize(path) >> 20
        play.image()
        seen(f"{took:.1f} s, {size} MiB; " + play.right())

    @pytest.mark.long
    @title("virsh migrate, stop-copy only, {mib} MiB in use")
    def test_stop_copy_only(self, play, seen, mib, no_precopy):
        play.start_anew(play.in_use)
        source, target = play.hosts
        for host in play.hosts:
            if not migration.knob_is_on(host.bdf, "no_precopy"):
                raise Failure(f"{host.bdf} was bound anew and has pre-copy again")
        play.mark()
        took = play.run("migrate", *play.target_options(),
                        "--available-switchover-bandwidth", str(AVAILABLE >> 20),
                        "--migrateuri", "unix://" + target.path("stream"), DOMAIN, target.uri)
        play.source, play.target = target, source
        play.attach_again()
        seen(f"{took:.1f} s; " + play.right())

    @pytest.fixture
    def no_precopy(self, play):
        """Devices that have no pre-copy"""
        for host in play.hosts:
            migration.turn_knob(host.bdf, "no_precopy", "Y")
        yield
        for host in play.hosts:
            migration.turn_knob(host.bdf, "no_precopy", "N")


@pytest.mark.long
class TestZipped:
    """Where save_image_format says so"""

    @title("a VM starts where images are zipped, {mib} MiB in use")
    def test_start(self, play, seen, mib):
        seen(play.start_anew(mib << 10, zips=True))

    @title("virsh save, restore, the image zipped, {mib} MiB in use")
    def test_save(self, play, seen, mib):
        seen(save_and_restore(play))


@title("after its end both functions have no driver of ours any more")
def test_given_back(play):
    play.source.virsh("destroy", DOMAIN)
    for host in play.hosts:
        host.try_virsh("nodedev-reattach", nodedev(host.bdf))
    assert not [host.bdf for host in play.hosts if driver_of(host.bdf) == DRIVER], "still bound"
