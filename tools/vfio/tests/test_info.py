# SPDX-License-Identifier: GPL-2.0-only
"""What info says of devices."""

import os

from lab import A, B, SIZE, Held, contents, info, path, rebind, run, set_state, state


def test_info_says_what_there_is():
    for iommu in "type1", "iommufd":
        text = run("info", A, "--iommu", iommu).stdout
        for word in A, "precopy-vfio-pci", iommu, "can migrate  yes", "RUNNING", "STOP_COPY P2P PRE_COPY":
            assert word in text, f"no '{word}' in {text}"
        got = info(A, 0, "--iommu", iommu)
        assert got["device"] == A and got["opened_by"] == iommu and got["can_migrate"], got
        assert got["features"] == ["STOP_COPY", "P2P", "PRE_COPY"] and got["flags"] == 7, got
        assert got["precopy"]["initial_bytes"] > 0 and got["precopy"]["dirty_bytes"] == 0, got
        assert got["dma_logging"] and got["data_size"] > 0 and got["state"] == "RUNNING", got
    assert info(A[5:])["device"] == A, "short address"
    assert state(A) == "RUNNING"


def test_info_in_use():
    with Held(A, contents(1)) as dev:
        got = info(A, 3)
        assert not got["can_migrate"] and "in use" in got["reason"] and got["state"] == "RUNNING", got
        got = info(dev.name, 0, fds=(dev.fd,))
        assert got["opened_by"] == "fd" and got["precopy"]["initial_bytes"] > SIZE // 3, got
        assert dev.read() == contents(1), "contents"


def test_info_of_a_device_that_is_migrating():
    with Held(A, contents(23)) as dev:
        for number, name in (3, "STOP_COPY"), (4, "RESUMING"):
            data_fd = set_state(dev, number)
            got = info(dev.name, 3, fds=(dev.fd,))
            assert name in got["reason"] and got["state"] == name and state(A) == name, got
            err = run("save", dev.name, "-o", path("snap"), status=3, fds=(dev.fd,)).stderr
            assert name in err, err
            os.close(data_fd)
            if number == 3:
                set_state(dev, 2)


def test_info_explains_obstacles():
    try:
        rebind(B, "vfio-pci")
        assert "variant driver" in info(B, 3)["reason"], "vfio-pci"
        rebind(B, "")
        assert "bound to no driver" in info(B, 3)["reason"], "no driver"
    finally:
        rebind(B, "precopy-vfio-pci")
    other = [d for d in os.listdir("/sys/bus/pci/drivers/virtio-pci") if ":" in d][0]
    assert "not a VFIO driver" in info(other, 3)["reason"], "virtio"
    assert "no device" in run("info", "00:1e.7", status=3).stderr, "missing"
    run("info", "nonsense", status=2)
    run("info", "fd:0", status=3)
    run("info", "fd:x", status=2)
