# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# The initramfs of the VM (L2), as an entry of the cache. Source it after
# scripts/lib.sh; need_guest sets GUEST to the directory with initrd.gz.

guest_key() {
	{ root_key; cat "$TOP"/scripts/demo/guest*.[ch] "$TOP/scripts/demo/build-guest" "$TOP/include/uapi/linux/vfio_precopy_engine.h"; } | hash_of
}

make_guest() {
	enter_root -p -r "$TOP:/precopy" -b "$1:/bed/guest" -- \
		/precopy/scripts/demo/build-guest /bed/guest/initrd.gz
}

need_guest() {
	entry_make guest "$(guest_key)" 20 5 "building the guest's program" make_guest
	# shellcheck disable=SC2034
	GUEST=$ENTRY
}

# The other guest, which uses the kernel's own driver and its test: need_endpoint sets
# ENDPOINT likewise. Needs SRC and KERNEL_DIR of the kernel that the VM boots.
endpoint_key() {
	{ root_key; kernel_key l1; cat "$TOP"/scripts/demo/{endpoint.c,guest_line.[ch],build-endpoint}; } | hash_of
}

make_endpoint() {
	enter_root -p -r "$TOP:/precopy" -r "$SRC:/bed/src" -r "$KERNEL_DIR:/bed/kernel" -b "$1:/bed/guest" -- \
		/precopy/scripts/demo/build-endpoint /bed/src /bed/kernel /bed/guest/initrd.gz
}

need_endpoint() {
	entry_make guest "$(endpoint_key)" 20 5 "building the guest of the endpoint's test" make_endpoint
	# shellcheck disable=SC2034
	ENDPOINT=$ENTRY
}
