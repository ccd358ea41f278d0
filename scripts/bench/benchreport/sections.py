# SPDX-License-Identifier: GPL-2.0-only
"""What is said about the samples: one function for each section of the report."""
from .text import Section, number, seconds, size, spread, time_spread

TARGET = 0.8
MIB = 1 << 20
DATA = (("random", "random data"), ("zero", "zero pages"))


def giga(samples, key, value_of_x):
    value = samples.get(key, value_of_x)
    return spread(value.scaled(1e-9)) if value else "-"


# Save and load

def rates(samples, prefix, way, data, who):
    """Rows: buffer size, the memfd's rate, and each one's ratio to it."""
    base = f"{prefix}{way}.{data}"
    for x in samples.xs(f"{base}.memfd"):
        yield [size(x), giga(samples, f"{base}.memfd", x), giga(samples, f"{base}.{who[0]}", x)] + \
              [spread(samples.ratio(f"{base}.{name}", f"{base}.memfd", x)) for name in who]


def verdict(samples, prefix, way, data):
    """Is the target met? Judged by the medians of all buffer sizes but the smallest."""
    base = f"{prefix}{way}.{data}"
    ratios = [samples.ratio(f"{base}.driver", f"{base}.memfd", x)
              for x in samples.xs(f"{base}.driver")[1:]]
    if not ratios or None in ratios:
        return None
    low, high = min(r.median for r in ratios), max(r.median for r in ratios)
    says = "met" if low >= TARGET else "missed" if high < TARGET else "met in part"
    return (f"{way}, {data}: {number(low)}..{number(high)} of memfd with buffers of "
            f"{size(samples.xs(base + '.driver')[1])} and more; target {TARGET}: {says}.")


SPLITS = {"save": ("copy", "checksum", "protect", "user"), "load": ("user", "checksum", "store")}


def split_rows(samples, way, data):
    """
    Picoseconds a byte; what the driver does not account for is the rest. At last the ratio of
    rates as if a checksum took no time, which is nearer to hardware than what TCG makes of it.
    """
    names = SPLITS[way]
    for x in samples.xs(f"ps.{way}.{data}.driver"):
        parts = [samples.get(f"split.{way}.{data}.{name}", x) for name in names]
        if None in parts:
            return
        whole = samples.get(f"ps.{way}.{data}.driver", x).median
        rest = whole - sum(p.median for p in parts)
        memfd = samples.get(f"ps.{way}.{data}.memfd", x).median
        checksum = parts[names.index("checksum")].median
        yield [size(x), number(whole)] + \
              [f"{number(p.median)} ({p.median / whole:.0%})" for p in parts] + \
              [f"{number(rest)} ({rest / whole:.0%})", number(memfd / (whole - checksum))]


def save_load(samples):
    part = Section("Save and load rate of the driver", "L1")
    for way, who in (("save", ("driver", "stopped")), ("load", ("driver",))):
        for data, name in DATA:
            header = ["buffer", "memfd GB/s", "driver GB/s", "driver/memfd"]
            header += ["stop-copy/memfd"] if "stopped" in who else []
            part.table(f"{way}, {name}", header, list(rates(samples, "", way, data, who)))
            part.table(f"{way}, {name}: where the driver's time goes, ps a byte",
                       ["buffer", "all", *SPLITS[way], "rest", "driver/memfd without checksum"],
                       list(split_rows(samples, way, data)))
            part.notes += filter(None, [verdict(samples, "", way, data)])
    part.notes.append("save: read() of the initial data in PRE_COPY, or of the whole stream in "
                      "STOP_COPY. load: write() into a device that has nothing, against a memfd "
                      "that is new: both allocate. Under TCG the CRC instructions of the checksum "
                      "are slow helpers: see the native figures and the last section.")
    return part


def native(samples):
    part = Section("The same stream code natively", "user space of the host")
    for way in ("save", "load"):
        for data, name in DATA:
            part.table(f"{way}, {name}", ["buffer", "memfd GB/s", "driver's way GB/s", "ratio"],
                       list(rates(samples, "native.", way, data, ("driver",))))
            part.notes += filter(None, [verdict(samples, "native.", way, data)])
    for way, name in (("save", "ways to save"), ("load", "ways to load")):
        part.table(f"{name}, buffer of 1 MiB, ratio to memfd", ["way", *(n for _, n in DATA)],
                   [[key.split(".")[-1]] + [spread(samples.ratio(
                       f"native.{way}.{data}.{key.split('.')[-1]}", f"native.{way}.{data}.memfd",
                       MIB)) for data, _ in DATA]
                    for key in samples.values if key.startswith(f"native.{way}.random.")])
        part.table(f"{way}: ps a byte, buffer of 1 MiB", ["", *(n for _, n in DATA)],
                   [[piece] + [spread(samples.get(f"native.split.{way}.{data}.{piece}", MIB))
                               for data, _ in DATA]
                    for piece in ("copy", "checksum", "user")
                    if samples.get(f"native.split.{way}.random.{piece}", MIB)])
    part.notes.append("A model, not the driver: stream.c as it is, the copies around it in pieces "
                      "of the same size, by the instruction that the kernel would use; CRC-32C of "
                      "ISA-L. Without locks, page tables and allocation.")
    part.notes.append("The other ways: \"records-N\": smaller or larger records, each through a "
                      "buffer of its size (the driver's are 64 KiB); \"zero-late\": zero pages are "
                      "found in the copy; \"zero-by-line\": 64 bytes at a time; \"crc-by-page\": "
                      "the checksum follows the copy page by page; \"direct\": checksum and copy of "
                      "the page itself, which a device that runs cannot have, since it may write "
                      "in between.")
    return part


# Tracking

WRITES = (("none", "not tracked, mapped"), ("again", "tracked, written before"),
          ("armed", "tracked, first since arming"), ("driver", "tracked, first since collecting"),
          ("memfd", "memfd, mapped"), ("uffd-armed", "userfaultfd-wp async, first since protecting"),
          ("uffd", "userfaultfd-wp async, first since PAGEMAP_SCAN"))


def first_write(samples):
    part = Section("First write to a page", "L1")
    rows = [[name, spread(samples.get(f"track.write.{key}")),
             spread(samples.ratio(f"track.write.{key}", "track.write.uffd"))]
            for key, name in WRITES if samples.get(f"track.write.{key}")]
    part.table("a store of 8 bytes to each page in turn", ["", "ns a page", "/ userfaultfd"], rows)
    rows = [[name, spread(samples.get(f"track.write.{key}"))]
            for key, name in (("uffd-arm", "UFFDIO_WRITEPROTECT of all"),
                              ("uffd-scan", "PAGEMAP_SCAN, all written, and protect"),
                              ("protect", "the driver's protection, all written"))
            if samples.get(f"track.write.{key}")]
    part.table("protecting, ns a page", ["", "ns a page"], rows)
    refused = samples.get("track.write.bar-uffd-errno")
    if refused:
        part.notes.append("userfaultfd tracks a memfd of the same size: the mm refuses to register "
                          f"the BAR (errno {refused.median:.0f})." if refused.median else
                          "userfaultfd could be registered on the BAR here, too.")
    return part


def fit_row(part, samples, key, name, unit, per):
    """A fitted line, as a row; its slope is for unit."""
    line = samples.line(key)
    if not line:
        return
    part.fits[key] = line.as_dict()
    part.tables[-1][2].append([name, seconds(line.base), f"{seconds(line.slope * unit)} / {per}",
                               f"{line.r2:.3f}"])


STEPS = (("track.arm", "arm: SET_STATE(PRE_COPY)"), ("track.arm.inner", "arm, in the driver"),
         ("track.arm-again.inner", "arm with 4 KiB entries, in the driver"),
         ("track.arm-again.pause", "longest pause of a thread that stores meanwhile"),
         ("track.collect-few", "collect 512 pages"), ("track.disarm", "disarm: SET_STATE(RUNNING)"),
         ("track.disarm.inner", "disarm, in the driver"))


def proportion(samples):
    part = Section("What arming and collecting are in proportion to", "L1")
    header = ["", "base", "slope", "r^2"]
    part.tables.append(("against memory in use: fitted lines", header, []))
    for key, name in STEPS:
        fit_row(part, samples, key, name, MIB, "MiB")
    part.tables.append(("against dirty pages: fitted lines", header, []))
    for how, name in (("dense", "one after the other"), ("spread", "all over the BAR")):
        fit_row(part, samples, f"track.collect.{how}", f"collect and read, {name}", 1, "page")
        fit_row(part, samples, f"track.protect.{how}", f"protect alone, {name}", 1, "page")
    part.tables = [t for t in part.tables if t[2]]
    for title, key, by in (("against memory in use", "track.arm", size),
                           ("against dirty pages", "track.collect.dense", lambda n: f"{n:g}")):
        keys = [(k, n) for k, n in STEPS if samples.xs(k)] if by is size else \
               [("track.collect.dense", "dense"), ("track.collect.spread", "spread")]
        part.table(title, ["", *(n for _, n in keys)],
                   [[by(x)] + [time_spread(samples.get(k, x)) for k, _ in keys]
                    for x in samples.xs(key)])
    return part


BIG = (("arm", "arm: SET_STATE(PRE_COPY)"), ("arm.inner", "arm, in the driver"),
       ("first-pass", "reading the initial data"), ("collect", "collecting 512 pages"),
       ("data-size", "MIG_DATA_SIZE, tracked"), ("data-size-running", "MIG_DATA_SIZE, running"),
       ("precopy-info", "PRECOPY_INFO"), ("disarm", "disarm: SET_STATE(RUNNING)"),
       ("disarm.inner", "disarm, in the driver"))


def big_bar(samples):
    part = Section("A 64 GiB BAR with 16 MiB in use, against a 64 MiB one", "L1")
    bars = samples.xs("big.arm")
    if len(bars) < 2:
        return part
    rows = []
    for key, name in BIG:
        if samples.get(f"big.{key}", bars[0]):
            rows.append([name] + [time_spread(samples.get(f"big.{key}", x)) for x in bars] +
                        [spread(samples.ratio(f"big.{key}", f"big.{key}", bars[-1], bars[0]))])
    memory = [samples.get("big.memory", x) for x in bars]
    if None not in memory:
        rows.append(["memory charged, MiB"] + [spread(m.scaled(1 / MIB)) for m in memory] +
                    [spread(samples.ratio("big.memory", "big.memory", bars[-1], bars[0]))])
    part.table("the same work in both", ["", *(size(x) for x in bars), "ratio"], rows)
    return part


HUGE = (("mapped", "new mapping, not tracked"), ("tracked", "tracked"), ("disarmed", "after disarm"),
        ("dontneed", "after MADV_DONTNEED"), ("dontneed-again", "once more"),
        ("remapped", "tracked again, after munmap and mmap"), ("remapped-again", "once more"))


def huge(samples):
    part = Section("How large mappings come back", "L1")
    rows = [[name, spread(samples.get(f"huge.first.{key}")),
             spread(samples.get(f"huge.minor.{key}")), spread(samples.get(f"huge.faults.{key}")),
             spread(samples.get(f"huge.pmds.{key}")),
             spread(samples.ratio(f"huge.first.{key}", "huge.first.mapped")),
             spread(samples.get(f"huge.again.{key}"))]
            for key, name in HUGE if samples.get(f"huge.first.{key}")]
    part.table("one store to each page of the BAR",
               ["", "first, ns a page", "faults", "the driver's", "of PMDs", "/ new", "again, ns a page"], rows)
    bar = samples.xs("huge.first.mapped")
    if bar:
        part.notes.append(f"The BAR has {size(bar[0])}: {bar[0] / 4096:.0f} pages, "
                          f"{bar[0] / (2 * MIB):.0f} units of 2 MiB. Tracking takes units apart "
                          "into pages. Who first touches a unit when its page table is gone pays for "
                          "putting it together again, a copy of 2 MiB: compare with \"once more\".")
    return part


# Accesses that wait

ENTRIES = (("2m", "entries of 2 MiB"), ("4k", "entries of 4 KiB"))
PHASES = (("untracked", "not tracked"), ("arm", "arm"), ("pass", "initial data"), ("cancel", "cancel"),
          ("after", "after the cancel"), ("arm-2", "second arm"), ("pass-2", "second initial data"),
          ("cancel-2", "second cancel"), ("after-2", "after that"), ("reset", "reset"))
SEEN = (("quantile", "99.99 %"), ("longest", "longest"), ("lost", "lost in all*"))
DIVIDED = (("took", "step took"), ("read", "longest load*"), ("write", "longest store*"),
           ("asleep", "longest asleep"), ("lost-asleep", "asleep in all"))
GIB = 1 << 30


def phase_rows(samples, entries, columns):
    for phase, name in PHASES:
        key = f"stall.{entries}.{phase}"
        for x in samples.xs(f"{key}.count"):
            yield [name, size(x), number(samples.get(f"{key}.count", x).median)] + \
                [time_spread(samples.get(f"{key}.{what}", x)) for what, _ in columns]


STALL_STEPS = (("arm", "took", "arm: SET_STATE(PRE_COPY)"), ("arm", "took.inner", "arm, accesses shut out"),
               ("cancel", "took", "cancel: SET_STATE(RUNNING)"),
               ("cancel", "took.inner", "cancel, accesses shut out"), ("reset", "took", "VFIO_DEVICE_RESET"))


def step_row(samples, part, base, what):
    """What a step takes for each GiB, by the clock and of the processor, and the second to the first."""
    row = []
    keys = [f"{base}{again}" for again in ("", "-2")]
    for of_step in (what, "ran") if what == "took" else (what, None):
        for key in keys:
            slope, line = samples.slope(f"{key}.{of_step}"), samples.line(f"{key}.{of_step}")
            row.append(time_spread(slope.scaled(GIB) if slope else None))
            if line:
                part.fits[f"{key}.{of_step}"] = line.as_dict()
    most = max(samples.xs(f"{keys[0]}.{what}"))
    return row + [spread(samples.ratio(f"{keys[1]}.{what}", f"{keys[0]}.{what}", most))]


def stall(samples):
    part = Section("Accesses that are kept waiting while the driver works", "L1")
    for entries, name in ENTRIES:
        for columns, what in ((SEEN, "what the threads saw"), (DIVIDED, "and what of that was in the driver")):
            part.table(f"{name}: {what}", ["phase", "in use", "accesses", *(n for _, n in columns)],
                       list(phase_rows(samples, entries, columns)))
    part.table("what the steps take for each GiB in use",
               ["", "step", "first", "second", "first, CPU", "second, CPU", "second / first"],
               [[name, step, *step_row(samples, part, f"stall.{entries}.{phase}", what)]
                for entries, name in ENTRIES for phase, what, step in STALL_STEPS
                if samples.xs(f"stall.{entries}.{phase}.{what}")])
    bar, threads = samples.get("config.stall.bar"), samples.get("config.stall.threads")
    if bar and threads:
        part.notes.append(f"{threads.median:.0f} threads load and {threads.median:.0f} store, each in bursts "
                          f"with pauses, at random pages of those in use of a BAR of {size(bar.median)}. "
                          "*: without the time in which the thread could run and had no processor. Asleep: "
                          "in the kernel, for a lock. Lost: by how much accesses were longer than 99.99 % "
                          "of those that were not tracked. An access counts for the phase in which it "
                          "began, or for the next if none had begun; it may wait for another one after "
                          "that.")
        part.notes.append("For each GiB: the slope of a line through the sizes of one repetition. Second / "
                          "first is of the largest size. With fewer than 10000 accesses, 99.99 % is the "
                          "longest.")
    return part


def guest(samples):
    part = Section("A KVM guest that writes while it is tracked", "L1, nested KVM")
    rows = [[f"{x:g} %", spread(samples.get("guest.none", x)),
             spread(samples.get("guest.tracked", x)),
             spread(samples.ratio("guest.tracked", "guest.none", x)),
             spread(samples.ratio("guest.disarmed", "guest.none", x)),
             spread(samples.ratio("guest.trapped", "guest.none", x))]
            for x in samples.xs("guest.tracked")]
    part.table("by pages written between two collects",
               ["pages", "untracked, ns a store", "tracked", "slowdown", "after disarm",
                "trapped / untracked"], rows)
    stores, bar = samples.get("config.guest.stores"), samples.get("config.guest.size")
    if stores and bar:
        part.notes.append(f"A pass is {stores.median:.0f} stores, one to a page in turn, in a BAR "
                          f"of {size(bar.median)}, about 0.1 s untracked; collecting between two "
                          "passes is not counted. A guest that does more between two collects "
                          "loses less. Trapped: no memory slot, so each store is an exit and a "
                          "pwrite() of user space, as with x-no-mmap=on.")
    return part


# The simulated IOMMU

def simulated(samples):
    part = Section("The simulated IOMMU", "L1, beside VT-d as QEMU emulates it")
    step = next(iter(samples.xs("sim.dma.write")), None)
    rows = [[name, giga(samples, f"sim.dma.{key}", step),
             spread(samples.ratio(f"sim.dma.{key}", "sim.dma.memcpy", step))]
            for key, name in (("memcpy", "memcpy()"), ("write", "iommu_sim_dma_rw(), write"))
            if samples.get(f"sim.dma.{key}", step)]
    part.table("1 MiB again and again, in steps of 4 KiB", ["", "GB/s", "/ memcpy"], rows)
    rows = [[size(x), time_spread(samples.get(f"sim.{way}.sim", x)),
             time_spread(samples.get(f"sim.{way}.other", x)),
             spread(samples.ratio(f"sim.{way}.sim", f"sim.{way}.other", x))]
            for way in ("map", "unmap") for x in samples.xs(f"sim.{way}.sim")]
    names = ["map"] * (len(rows) // 2) + ["unmap"] * (len(rows) // 2)
    part.table("iommufd maps memory of 2 MiB pages", ["", "size", "simulated", "VT-d", "ratio"],
               [[name, *row] for name, row in zip(names, rows)])
    if samples.get("sim.open.sim"):
        part.table("open a device, with the function's reset", ["simulated, FLR", "pci-testdev, no reset"],
                   [[time_spread(samples.get(f"sim.open.{who}")) for who in ("sim", "other")]])
    part.notes.append("Mapping is mostly pinning of the pages, which both have. VT-d invalidates by "
                      "registers and memory that QEMU emulates.")
    return part


# The simulated IOMMU and the self-test domain of iommufd

DOMAIN_STEPS = (("pinned.map", "map"), ("pinned.unmap", "unmap"), ("domain.fill", "fill"),
                ("domain.empty", "empty"))
PAGES = (("2m", "2 MiB", 2 * MIB), ("4k", "4 KiB", 4096))


def domain_rows(samples, pages, name):
    for step, step_name in DOMAIN_STEPS:
        sim, other = (f"sim.{step}.{pages}.{who}" for who in ("sim", "selftest"))
        for x in samples.xs(sim):
            yield [name, step_name, size(x), time_spread(samples.get(sim, x)),
                   time_spread(samples.get(other, x)), spread(samples.ratio(sim, other, x))]


def domain_slopes(samples, part):
    for pages, name, page in PAGES:
        for step, step_name in DOMAIN_STEPS:
            lines = [samples.line(f"sim.{step}.{pages}.{who}") for who in ("sim", "selftest")]
            if None in lines:
                continue
            part.fits.update({f"sim.{step}.{pages}.{who}": line.as_dict()
                              for who, line in zip(("sim", "selftest"), lines)})
            yield [name, step_name] + [f"{number(line.slope * page)} ns" for line in lines] + \
                [number(lines[0].slope / lines[1].slope), f"{min(line.r2 for line in lines):.3f}"]


def domain_slices(samples):
    for pages, name, _ in PAGES:
        for who, who_name in (("sim", "simulated"), ("selftest", "self-test")):
            most = samples.get(f"sim.slice.bytes.{pages}.{who}")
            if most:
                yield [name, who_name, size(most.median),
                       time_spread(samples.get(f"sim.slice.ns.{pages}.{who}")),
                       time_spread(samples.get(f"sim.wait.{pages}.{who}"))]


def domains(samples):
    part = Section("The simulated IOMMU, beside the self-test domain of iommufd", "L1")
    part.table("map, unmap: with pinning; fill, empty: a domain beside one that has the pages",
               ["pages", "", "size", "simulated", "self-test", "ratio"],
               [row for pages, name, _ in PAGES for row in domain_rows(samples, pages, name)])
    part.table("a page, as the slope of fitted lines", ["pages", "", "simulated", "self-test", "ratio", "r^2"],
               list(domain_slopes(samples, part)))
    part.table("unmap of the largest size, in one call of iommufd",
               ["pages", "unmapped", "most in a call of the driver", "longest between two calls' ends",
                "longest DMA of a simulated function"], list(domain_slices(samples)))
    part.notes.append("Ranges above 1 GiB map the same 1 GiB at consecutive IOVAs. A page of the self-test "
                      "domain is two entries, of 2 KiB or 1 MiB; of the simulated IOMMU it is one.")
    return part


# The engine

WAYS = (("type1", "pins of type1"), ("iommufd", "pins of iommufd"), ("sim", "simulated IOMMU"))


def engine(samples):
    part = Section("The engine: DMA, interrupts and the DMA log", "L1")
    step = next(iter(samples.xs("engine.copy.memcpy")), None)
    part.table("copies of 1 MiB, a page at a time", ["", "GB/s", "/ memcpy", "a page"],
               [[name, giga(samples, f"engine.copy.{key}", step),
                 spread(samples.ratio(f"engine.copy.{key}", "engine.copy.memcpy", step)),
                 time_spread(samples.get(f"engine.page.{key}", step))]
                for key, name in (("memcpy", "memcpy()"), *WAYS)
                if samples.get(f"engine.copy.{key}", step)])
    part.table("interrupts", ["", "one", "a second", "/ write() to an eventfd"],
               [[name, time_spread(value), number(1e9 / value.median),
                 spread(samples.ratio(f"engine.irq.{key}", "engine.irq.eventfd"))]
                for key, name in (("eventfd", "write() to an eventfd"), *WAYS)
                if (value := samples.get(f"engine.irq.{key}"))])
    for key, name, x_name in (("range", "with nothing in it", size), ("pages", "of 64 MiB", number)):
        part.table(f"reading a DMA log {name}", ["range" if key == "range" else "pages written", ""],
                   [[x_name(x), time_spread(samples.get(f"engine.log.{key}", x))]
                    for x in samples.xs(f"engine.log.{key}")])
    for key, unit, times in (("range", "GiB of range", 1 << 30), ("pages", "page written", 1)):
        line = samples.line(f"engine.log.{key}")
        if line:
            part.fits[f"engine.log.{key}"] = line.as_dict()
            part.notes.append(f"Reading the log takes {number(line.slope * times)} ns more for each "
                              f"{unit}, r^2 {line.r2:.3f}.")
    part.notes.append("A page of a copy is one step: planned under a lock, executed without one. An "
                      "interrupt is a step, too.")
    return part


# Downtime

WHO = (("pause", "VM ran nowhere"), ("qemu", "QEMU reports"), ("device", "device's stop-copy"),
       ("guest", "guest silent"))
WHERE = (("guest", "longest"), ("running", "while the source ran"), ("pause", "VM ran nowhere"),
         ("resumed", "running, but not heard"))


def downtime(samples):
    part = Section("Downtime of a migrating VM", "L1, QEMU with nested KVM")
    for axis, name, label in (("memory", "memory in use", "MiB"), ("startup", "target's startup", "s"),
                              ("dma", "DMA of the device", "MiB/s"),
                              ("limit", "QEMU's downtime limit", "ms")):
        rows = []
        for x in samples.xs(f"downtime.{axis}.stopcopy.qemu"):
            for kind, kind_name in (("precopy", "pre-copy"), ("stopcopy", "stop-copy")):
                base = f"downtime.{axis}.{kind}"
                rows.append([f"{x:g} {label}", kind_name] +
                            [spread(samples.get(f"{base}.{who}", x)) for who, _ in WHO])
            base = f"downtime.{axis}"
            rows.append(["", "ratio"] + [spread(samples.ratio(
                f"{base}.precopy.{who}", f"{base}.stopcopy.{who}", x)) for who, _ in WHO])
        part.table(f"over {name}, ms", [name, "", *(n for _, n in WHO)], rows)
        base = f"downtime.{axis}.precopy"
        part.table(f"where the guest was silent with pre-copy, over {name}, ms",
                   [name, *(n for _, n in WHERE)],
                   [[f"{x:g} {label}"] + [spread(samples.get(f"{base}.{where}", x)) for where, _ in WHERE]
                    for x in samples.xs(f"{base}.running")])
        part.table(f"what was left to send when the VM stopped, over {name}",
                   [name, "MiB", "device's stop-copy, ms", "ms a MiB"],
                   [[f"{x:g} {label}"] + [spread(samples.get(f"{base}.{what}", x))
                                          for what in ("left", "device")] +
                    [spread(samples.ratio(f"{base}.device", f"{base}.left", x))]
                    for x in samples.xs(f"{base}.left")])
        for kind, kind_name in (("precopy", "pre-copy"), ("stopcopy", "stop-copy")):
            line = samples.line(f"downtime.{axis}.{kind}.pause")
            if line:
                part.fits[f"downtime.{axis}.{kind}.pause"] = line.as_dict()
                # Two points are always on a line
                fit = f", r^2 {line.r2:.3f}" if len(samples.xs(f"downtime.{axis}.{kind}.pause")) > 2 \
                    else ""
                part.notes.append(f"{kind_name}: {number(line.slope)} ms more for each {label} of "
                                  f"{name}{fit}.")
    part.notes.append("VM ran nowhere: from stopping the source's device to running on the target. "
                      "Device's stop-copy: from its STOP_COPY on the source to the last byte loaded "
                      "on the target, which has to start first. Guest silent: the longest time "
                      "between two heartbeats of the guest's program, as heard outside. Running, but not "
                      "heard: from the target's start to the first heartbeat there.")
    return part


def distortion(samples):
    part = Section("What emulation distorts", "for the reader")
    part.notes = [
        "Sections marked L1 ran in a virtual machine. If \"L1 cpu\" above names QEMU TCG, every "
        "instruction of it was emulated: times are many times those of hardware, and not by the "
        "same factor. Only ratios of like to like mean something there.",
        "Most distorted: the checksum. CRC32 and carry-less multiplication are calls of helpers in "
        "TCG, while a copy is nearly native; so driver/memfd of random data is far too low in L1. "
        "Zero pages, which have no checksum, show the rest of the path there; the native section "
        "shows all of it but locks and page tables.",
        "Page faults, TLB flushes and exits of a guest cost in TCG what their emulation costs. "
        "Counts (faults, exits, pages), slopes' linearity, and flat against rising lines do not "
        "depend on that. With nested KVM on emulated SVM the exit of a trapped store is dearer than "
        "on hardware, and so is a fault.",
        "Large mappings gain less than on hardware: TCG's own TLB has small pages only."]
    crc = samples.get("native.crc", 65536.0)
    if crc:
        part.notes.append(f"CRC-32C natively, alone: {spread(crc.scaled(1e-9))} GB/s.")
    return part


SECTIONS = (native, save_load, first_write, proportion, big_bar, huge, stall, guest, engine, simulated,
            domains, downtime)


def all_sections(samples):
    """Those that have something to show, and the last."""
    return [part for part in (make(samples) for make in SECTIONS) if part.tables] + \
        [distortion(samples)]
