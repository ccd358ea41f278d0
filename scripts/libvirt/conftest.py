# SPDX-License-Identifier: GPL-2.0-only
"""
Fixtures of the tests with libvirt; run-libvirt runs them, on a machine with two functions
that our driver has an alias for, and where modprobe finds it.
"""
import subprocess

import pytest

from play import Play

pytest_plugins = ["livemig.pytest_vms"]


def pytest_addoption(parser):
    parser.addoption("--startup", type=int, default=2000, metavar="MS",
                     help="how long a target's device takes to start (default: 2000)")
    parser.addoption("--in-use", type=int, default=64, metavar="KIB",
                     help="how much of the device the guest uses (default: 64)")
    parser.addoption("--save-mib", type=int, action="append", metavar="MIB",
                     help="how much of it is in use when the VM is saved; may be repeated "
                     "(default: 16 and 128)")
    parser.addoption("--save-limit", type=int, default=60, metavar="SECONDS",
                     help="how long a save may take, times the patience (default: 60)")
    parser.addoption("--unaided", action="store_true",
                     help="tell QEMU nothing before, to see which commands then do not end")


def pytest_configure(config):
    config.addinivalue_line("markers", "moves: is about migrations, not about saved states")


def kernel_messages():
    """The last ones"""
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()[-12:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    except BaseException:
        for host in item.funcargs["play"].hosts:
            item.add_report_section("call", host.name, "\n".join(host.last_words()))
        item.add_report_section("call", "kernel", "\n".join(kernel_messages()))
        raise


@pytest.fixture(scope="session")
def play(pytestconfig, tmp_path_factory):
    """One VM and two hosts, in the state in which the last test has left them"""
    found = Play(pytestconfig.option, str(tmp_path_factory.mktemp("play")))
    yield found
    found.end()


@pytest.fixture
def seen(record_property):
    """Tells what was seen"""
    return lambda text: record_property("seen", text)
