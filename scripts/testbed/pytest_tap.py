# SPDX-License-Identifier: GPL-2.0-only
"""
pytest -p pytest_tap: prints TAP in place of pytest's own words.

A test has the name that pytest takes on its command line, as in
"test_info.py::test_info_in_use", or that of its mark "title", in which "{mib}" stands
for the parameter "mib". What went wrong, the properties that a test has recorded, and
how long it took are in comments. --collect-only prints names and titles.

With TAP_SHARED, an empty folder, in the environment, several runs of the same tests
that have the same output share them: each file is run by the one that comes to it first,
and together they print one TAP.
"""
import contextlib
import fcntl
import os
import time

import pytest
from _pytest.terminal import TerminalReporter

# A test is told about when it has been cleaned up after.
PHASES = ("setup", "call", "teardown")


def comment(text):
    return "".join(f"# {line}\n" for line in text.splitlines())


def title(item):
    """The name of a test in TAP"""
    mark = item.get_closest_marker("title")
    if not mark:
        return item.nodeid
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return mark.args[0].format(**parameters)


class Alone:
    """What a run has that shares its tests with no other"""
    def __init__(self):
        self.number = 0

    def takes(self, _name):
        return True

    @contextlib.contextmanager
    def turn(self):
        """The number of the next result, while no other run prints"""
        self.number += 1
        yield self.number


class Shared:
    def __init__(self, folder):
        self.folder = folder
        self.taken = {}

    def takes(self, name):
        """Is this for us? The same answer each time"""
        if name not in self.taken:
            try:
                os.mkdir(os.path.join(self.folder, name))
                self.taken[name] = True
            except FileExistsError:
                self.taken[name] = False
        return self.taken[name]

    @contextlib.contextmanager
    def turn(self):
        with open(os.path.join(self.folder, "number"), "a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # As many bytes as results
            file.write(".")
            file.flush()
            yield file.tell()


class Tap:
    def __init__(self):
        folder = os.environ.get("TAP_SHARED")
        self.share = Shared(folder) if folder else Alone()
        self.titles = {}
        self.reports = []
        self.began = time.monotonic()

    def pytest_collection_finish(self, session):
        self.titles = {item.nodeid: title(item) for item in session.items}
        if session.config.option.collectonly:
            for name, text in self.titles.items():
                print(name if text == name else f"{name}: {text}")
        elif self.share.takes("plan"):
            print(f"TAP version 13\n1..{len(session.items)}", flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        # True keeps pytest from running it.
        return None if self.share.takes(item.path.name) else True

    def pytest_collectreport(self, report):
        if report.failed:
            print(comment(report.longreprtext), end="")

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)
        if report.when == PHASES[-1]:
            self.tell(self.titles[report.nodeid], self.reports)
            self.reports = []

    def tell(self, name, reports):
        failed = [report for report in reports if report.failed]
        skipped = [report for report in reports if report.skipped]
        text = comment("\n".join(report.longreprtext for report in failed))
        if failed:
            text += "".join(comment(f"{what}:\n{said}") for what, said in failed[0].sections)
        why = ""
        if skipped and not failed:
            why = " # SKIP " + skipped[0].longrepr[2].removeprefix("Skipped: ")
        with self.share.turn() as number:
            text += f"{'not ok' if failed else 'ok'} {number} - {name}{why}\n"
            text += comment("\n".join(f"{what}: {said}"
                                      for what, said in reports[-1].user_properties))
            text += f"# {sum(report.duration for report in reports):.1f} s{self.left(number)}\n"
            print(text, end="", flush=True)

    def left(self, number):
        """How long the others may take after so many, if that is long"""
        others = len(self.titles) - number
        seconds = others * (time.monotonic() - self.began) / number
        return f", about {seconds / 60:.0f} min left for {others}" if seconds > 60 else ""

    def pytest_sessionfinish(self, session):
        if session.exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            print(f"Bail out! pytest: {pytest.ExitCode(session.exitstatus).name}", flush=True)


def pytest_addoption(parser):
    parser.addoption("--pick", metavar="NAMES",
                     help="only the tests that have these names in TAP, one a line")


def pytest_collection_modifyitems(config, items):
    if config.option.pick:
        picked = config.option.pick.splitlines()
        config.hook.pytest_deselected(items=[item for item in items if title(item) not in picked])
        items[:] = [item for item in items if title(item) in picked]


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "title(text): the test's name in TAP")
    # Others ask pytest's own reporter for its terminal, so there is one that nobody sees.
    config.pluginmanager.unregister(name="terminalreporter")
    silent = TerminalReporter(config, open(os.devnull, "w", encoding="utf-8"))
    config.pluginmanager.register(silent, "terminalreporter")
    config.pluginmanager.register(Tap(), "tap")
