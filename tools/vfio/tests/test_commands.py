# SPDX-License-Identifier: GPL-2.0-only
"""list, check, info of a file, and --bandwidth; and ways to open a device, if the machine
has an igb (for VF tokens) or two functions of one IOMMU group.
"""

import json
import os

import pytest

from lab import (A, B, SIZE, Held, Knob, contents, finish, get, hello, path, put, read_file, rebind, receiver,
                 run, start, state, sysfs, unix, write_file)

PCI = "/sys/bus/pci/devices"
DEBUGFS = "/sys/kernel/debug/vfio"


def listed():
    return {d["device"]: d for d in json.loads(run("list", "--json").stdout)["devices"]}


def test_list_tells_without_opening():
    data = contents(60)
    with Held(A, data) as dev:
        got = listed()
        assert {A, B} <= set(got), got
        assert got[A]["can_migrate"] and got[A]["state"] == "RUNNING", got[A]
        assert got[A]["features"] == ["stop-copy", "p2p", "pre-copy", "dirty-tracking"], got[A]
        assert got[A]["driver"] == "precopy-vfio-pci" and got[A]["vendor"] == 0x1b36, got[A]
        text = run("list").stdout.splitlines()
        assert text[0].startswith("DEVICE") and any(A in line and "yes" in line for line in text), text
        assert dev.read() == data, "contents"
    try:
        rebind(B, "vfio-pci")
        assert listed()[B]["can_migrate"] is False, listed()[B]
        rebind(B, "")
        assert B not in listed(), listed()
    finally:
        rebind(B, "precopy-vfio-pci")


def test_check_knows_whether_it_can_be_moved():
    got = json.loads(run("check", A, B, "--json").stdout)
    assert got["can_move"] and not got["reasons"], got
    assert "can be moved" in run("check", A, B).stdout, "text"
    put(sysfs(B, "precopy/memory_size"), 2 * SIZE)
    try:
        got = json.loads(run("check", A, B, "--json", status=3).stdout)
        assert not got["can_move"] and "memory" in got["reasons"][0], got
        assert run("move", A, B, "--verify", status=None).returncode != 0, "it can be moved"
    finally:
        put(sysfs(B, "precopy/memory_size"), SIZE)
    with Knob(A, "no_precopy", "Y"):
        assert "no pre-copy" in json.loads(run("check", A, B, "--json").stdout)["note"], "note"
    try:
        rebind(B, "vfio-pci")
        got = run("check", A, B, status=3).stdout
        assert "cannot be moved" in got and "variant driver" in got, got
    finally:
        rebind(B, "precopy-vfio-pci")
    with Held(A, contents(61)) as dev:
        run("check", A, B, status=3)
        run("check", dev.name, B, fds=(dev.fd,))
        assert state(A) == "RUNNING" and dev.read() == contents(61), "contents"


def test_info_of_a_snapshot():
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", contents(62)), "-o", path("snap"))
    got = json.loads(run("info", "-i", path("snap"), "--json").stdout)
    assert got["complete"] and got["vendor"] == 0x1b36 and got["driver"] == "precopy-vfio-pci", got
    assert got["memory_size"] == SIZE and SIZE // 3 < got["stream_bytes"] < SIZE, got
    assert "complete" in run("info", "-i", path("snap")).stdout, "text"
    good = read_file("snap")
    for bad in good[:-1], good[:5000], good + b"x", hello() + b"\0" * 100, b"":
        run("info", "-i", write_file("bad", bad), status=7)


def test_bandwidth_is_limited():
    """Not faster than the limit, however fast or slow the machine is; and it arrives."""
    data = contents(63)
    rate = SIZE // 6
    with Held(A, data) as dev:
        numbers = json.loads(run("save", dev.name, "-o", path("snap"), "--json", "--bandwidth", str(rate),
                                 fds=(dev.fd,)).stdout)
        seconds = numbers["total_ns"] / 1e9
        # One piece of a tenth of a second may be under way
        assert numbers["bytes"]["total"] <= rate * (seconds + 0.2), numbers
        receiving = receiver(unix())
        sending = start("send", dev.name, "--to", unix(), "--json", "--bandwidth", f"{rate // 1024}K",
                        "--timeout", "2", fds=(dev.fd,))
        numbers = json.loads(finish(sending, timeout=120)[0])
        finish(receiving)
        assert numbers["bytes"]["total"] <= rate * (numbers["total_ns"] / 1e9 + 0.2), numbers
        assert read_file("out") == data, "contents"
    # Also while it is stopped: that is foreseen
    with Held(A, data) as dev:
        numbers = json.loads(run("move", dev.name, B, "--verify", "--json", "--stop-copy", "--bandwidth", str(rate),
                                 fds=(dev.fd,), timeout=120).stdout)
        assert numbers["bytes"]["stopped"] <= rate * (numbers["downtime_ns"] / 1e9 + 0.2), numbers


def group(bdf):
    return os.path.basename(os.readlink(sysfs(bdf, "iommu_group")))


def of_one_group():
    by_group = {}
    for bdf in sorted(os.listdir(PCI)):
        if get(sysfs(bdf, "vendor")) == "0x1b36" and get(sysfs(bdf, "device")) == "0x0005":
            by_group.setdefault(group(bdf), []).append(bdf)
    pairs = [bdfs for bdfs in by_group.values() if len(bdfs) == 2]
    if not pairs:
        pytest.skip("no two functions of one IOMMU group")
    return pairs[0]


def test_two_functions_of_one_group():
    first, second = of_one_group()
    try:
        for bdf in first, second:
            rebind(bdf, "precopy-vfio-pci")
            put(sysfs(bdf, "precopy/memory_size"), SIZE)
        data = contents(64)
        for iommu in "iommufd", "type1", "auto":
            run("move", first, second, "--iommu", iommu, "-q", "--fill-region", "2=" + write_file("in", data),
                "--dump-region", "2=" + path("out"))
            assert read_file("out") == data, ("contents", iommu)
            run("check", first, second, "--iommu", iommu)
        # Another program has the other function
        with Held(first, data):
            for iommu in "iommufd", "type1":
                err = run("load", second, "--verify", "-i", path("held.snap"), "--iommu", iommu, status=3).stderr
                assert "open elsewhere" in err and "root" not in err, err
    finally:
        for bdf in first, second:
            rebind(bdf, "")


def virtual_function():
    for bdf in sorted(os.listdir(PCI)):
        if os.path.exists(sysfs(bdf, "sriov_totalvfs")) and get(sysfs(bdf, "device")) == "0x10c9":
            break
    else:
        pytest.skip("no igb")
    put("/sys/module/vfio_pci/parameters/enable_sriov", "Y")
    rebind(bdf, "vfio-pci")
    put(sysfs(bdf, "sriov_numvfs"), 1)
    virtual = os.path.basename(os.readlink(sysfs(bdf, "virtfn0")))
    rebind(virtual, "vfio-pci")
    return bdf, virtual


def test_a_virtual_function_is_opened_by_its_token():
    physical, virtual = virtual_function()
    token, other = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3", "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f4"
    try:
        for iommu in "iommufd", "type1":
            # To open the physical function with a token is to set that
            for bdf in physical, virtual:
                got = json.loads(run("info", bdf, "--json", "--iommu", iommu, "--vf-token", token, status=3).stdout)
                assert got["opened_by"] == iommu and "variant driver" in got["reason"], got
            for args, word in ((), "give the VF token"), (("--vf-token", other), "is not the VF token"):
                got = json.loads(run("info", virtual, "--json", "--iommu", iommu, *args, status=3).stdout)
                assert word in got["reason"] and not got["opened_by"], got
            # Where it makes no sense it does no harm
            run("info", A, "--iommu", iommu, "--vf-token", token)
    finally:
        put(sysfs(physical, "sriov_numvfs"), 0)
        rebind(physical, "")
