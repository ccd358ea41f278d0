# SPDX-License-Identifier: GPL-2.0-only
"""Drive two QEMU that migrate a VM with a passed-through device, and judge it."""
