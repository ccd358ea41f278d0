# SPDX-License-Identifier: GPL-2.0-only
#
# The front door. The driver's own, in-tree Makefile is in
# drivers/vfio/pci/precopy; this file is not part of a kernel build.

KDIR ?=
DRIVER := drivers/vfio/pci/precopy
SCRIPTS := scripts

# "make KDIR=..." builds the module, "make" explains
.DEFAULT_GOAL := $(if $(KDIR),modules,help)

.PHONY: help
help:
	@echo 'Try it'
	@echo '  demo          migrate a running VM with our device, and check every byte'
	@echo '  demo-shipped  one migration on Debian'"'"'s kernel as shipped'
	@echo '  shell         a shell in L1, with the module loaded and two devices bound'
	@echo '                (SHELL_ARGS="--kernel debug", ... for more: scripts/l1-run --help)'
	@echo '  gdb           attach gdb to the L1 that runs, or boot one (scripts/l1-gdb --help);'
	@echo '                with T=PROGRAM:TEST [K=l1] boot one in which this test waits for gdb'
	@echo ''
	@echo 'Test it'
	@echo '  check         all tests, on the plain and on the debug kernel'
	@echo '                (CHECK=--failed: again what failed in the last run)'
	@echo '  test          one kselftest: T=PROGRAM[:[FIXTURE.]TEST] [K=debug] [MODE=iommufd]'
	@echo '                (scripts/run-test --help)'
	@echo '  kunit         the unit tests of the driver [K=debug]'
	@echo '  check-static  checkpatch, sparse, W=1 with gcc and clang, kernel-doc, ...'
	@echo '  check-intree  build the driver inside a kernel tree'
	@echo '  lint          check-static, and coccicheck, the uAPI, the pages through Sphinx'
	@echo '  mutants       do the tests notice mistakes that are planted in the driver?'
	@echo '  fuzz          fuzz the stream, on the host and on a device (FUZZ_SECONDS=60 FUZZ_JOBS=2,'
	@echo '                FUZZ="..." for more: scripts/run-fuzz --help)'
	@echo '  qemu-faults   a VM migrates while things go wrong (scripts/faults/run-faults --help)'
	@echo '  matrix        a VM migrates between two versions of QEMU, in all ways (MATRIX="--short",'
	@echo '                "--rst" writes the page of the documentation: scripts/matrix/run-matrix --help)'
	@echo '  libvirt       libvirt finds the driver, and migrates a VM (scripts/libvirt/run-libvirt --help)'
	@echo '  soak          thousands of cycles, and nothing may leak (scripts/soak/run-soak --help)'
	@echo '  torture       mistreat the driver for long (scripts/torture --help)'
	@echo ''
	@echo 'Measure it'
	@echo '  bench         measure, and write a report with plots (scripts/bench/run-bench --help)'
	@echo '  coverage      which lines of the driver the tests run, in a report; a quarter of an hour'
	@echo ''
	@echo 'Build and package it'
	@echo '  modules       build the module: for the kernel in KDIR=..., else for L1'
	@echo '  tools         build vfio-migrate, in tools/vfio'
	@echo '  deb           build Debian packages (scripts/deb-build --help)'
	@echo '  dkms-source   put what DKMS needs into DESTDIR=/usr/src/precopy-vfio-pci-VERSION'
	@echo '  prepare       only make what the test bed needs (root, kernels)'
	@echo '  clean         remove build results'
	@echo '  cache-clean   remove the whole cache of the test bed'
	@echo ''
	@echo 'Contribute it'
	@echo '  compile_commands  what clangd wants to know of the driver'
	@echo '  series        write the driver as patches for the kernel (scripts/series --help)'
	@echo '  series-check  apply them, and build each with gcc and clang, the last for arm64 and powerpc'
	@echo '  kvm-patch     test the optional patch of KVM, with and without it (scripts/kvm-patch --help)'
	@echo '  qemu-patch    build QEMU with the optional patches, and try it (scripts/qemu-patch --help)'
	@echo ''
	@echo 'Example, a module for the running kernel:'
	@echo '  make KDIR=/lib/modules/$$(uname -r)/build'
	@echo ''
	@echo 'Apart from KDIR=... and packages, everything needs root, a network for the first time,'
	@echo 'and about 8 GiB in $$PRECOPY_CACHE (default ~/.cache/precopy-vfio-pci).'

.PHONY: modules
ifneq ($(KDIR),)
# A plain build against somebody's kernel: no test bed, no root.
modules:
	@$(SCRIPTS)/kdir-build '$(KDIR)' $(MAKEOVERRIDES)
else
modules:
	@$(SCRIPTS)/kmod-build
endif

.PHONY: demo
demo:
	@$(SCRIPTS)/demo/run-demo

.PHONY: demo-shipped
demo-shipped:
	@$(SCRIPTS)/demo/run-demo shipped

# Options, such as BENCH="--quick" or BENCH="--size 1G"
.PHONY: bench
bench:
	@$(SCRIPTS)/bench/run-bench $(BENCH)

# Options, such as FUZZ="--device 0 --minimise"
.PHONY: fuzz
fuzz:
	@$(SCRIPTS)/run-fuzz $(if $(FUZZ_SECONDS),--seconds $(FUZZ_SECONDS)) $(if $(FUZZ_JOBS),--jobs $(FUZZ_JOBS)) $(FUZZ)

# Options, such as FAULTS="--only line_cut --rounds 20 --seed 7"
.PHONY: qemu-faults
qemu-faults:
	@$(SCRIPTS)/faults/run-faults $(FAULTS)

# Options, such as MATRIX=--short
.PHONY: matrix libvirt
matrix:
	@$(SCRIPTS)/matrix/run-matrix $(MATRIX)
libvirt:
	@$(SCRIPTS)/libvirt/run-libvirt $(LIBVIRT)

# Options, such as SOAK="--kernel debug", besides CYCLES=2000 and MIGRATIONS=50
.PHONY: soak
soak:
	@$(SCRIPTS)/soak/run-soak $(SOAK)

# Options, such as TORTURE="--minutes 60 --kernels debug,kcsan"
.PHONY: torture
torture:
	@$(SCRIPTS)/torture $(TORTURE)

# Beside its sources, or in OUTPUT=...
.PHONY: tools
tools:
	@$(MAKE) --no-print-directory -C tools/vfio

# Options, such as DEB="--source --check"
.PHONY: deb dkms-source
deb:
	@$(SCRIPTS)/deb-build $(DEB)
dkms-source:
	@$(SCRIPTS)/dkms-source $(if $(SIM),--sim) $(DESTDIR)

# Options, such as CHECK=--failed
.PHONY: check
check:
	@$(SCRIPTS)/check $(CHECK)

# One test, without the rest of the suite
.PHONY: test kunit
test:
	@$(SCRIPTS)/run-test $(if $(K),--kernel $(K)) $(if $(MODE),--modes $(MODE)) $(T)
kunit:
	@KERNEL=$(or $(K),l1) $(SCRIPTS)/suites/kunit run

# What is run on the kernel that counts
.PHONY: coverage
coverage:
	@$(SCRIPTS)/check --kernels debug --suites $(shell $(SCRIPTS)/check --list | awk '/ debug / { print $$1 }' | paste -sd,)

.PHONY: check-static lint check-intree mutants
check-static:
	@$(SCRIPTS)/check --suites static
lint:
	@$(SCRIPTS)/check --suites static,lint
check-intree:
	@$(SCRIPTS)/check --suites intree
mutants:
	@$(SCRIPTS)/check --suites mutants --kernels l1

# Options, such as SERIES="--out /tmp/v2 --reroll 2"
.PHONY: series series-check
series:
	@$(SCRIPTS)/series $(SERIES)
series-check:
	@$(SCRIPTS)/check --suites series

# Options, such as KVM_PATCH="--kernels kvm"
.PHONY: kvm-patch
kvm-patch:
	@$(SCRIPTS)/kvm-patch $(KVM_PATCH)

# Options, such as QEMU_PATCH="--out /tmp/traces"
.PHONY: qemu-patch
qemu-patch:
	@$(SCRIPTS)/qemu-patch $(QEMU_PATCH)

# Options, such as SHELL_ARGS="--kernel debug --carriers nvme,nvme"
.PHONY: shell
shell:
	@tools=$$($(SCRIPTS)/tools-build) && exec $(SCRIPTS)/l1-run --interactive --share "$$tools" $(SHELL_ARGS)

# Without T=, that of "make shell" or of a test that hangs
.PHONY: gdb
gdb:
ifneq ($(T),)
	@$(SCRIPTS)/run-test --gdb --kernel $(or $(K),debug) $(if $(MODE),--modes $(MODE)) $(T)
else
	@$(SCRIPTS)/l1-gdb $(if $(K),--kernel $(K))
endif

# For editors
.PHONY: compile_commands
compile_commands:
	@$(SCRIPTS)/compile-commands

.PHONY: prepare
prepare:
	@$(SCRIPTS)/bed-prepare l1 debug clang

.PHONY: clean cache-clean
clean:
	@$(SCRIPTS)/bed-clean
cache-clean:
	@$(SCRIPTS)/bed-clean --all
