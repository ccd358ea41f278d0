# SPDX-License-Identifier: GPL-2.0-only
"""
pytest -p pytest_tap: prints TAP in place of pytest's own words.

A test has the name that pytest takes on its command line, as in
"test_info.py::test_info_in_use". What went wrong, and how long a test took, is in
comments.
"""
import os

import pytest
from _pytest.terminal import TerminalReporter

# A test is told about when it has been cleaned up after.
PHASES = ("setup", "call", "teardown")


def comment(text):
    return "".join(f"# {line}\n" for line in text.splitlines())


class Tap:
    def __init__(self):
        self.number = 0
        self.reports = []

    def pytest_collection_finish(self, session):
        print(f"TAP version 13\n1..{len(session.items)}", flush=True)

    def pytest_collectreport(self, report):
        if report.failed:
            print(comment(report.longreprtext), end="")

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)
        if report.when == PHASES[-1]:
            self.tell(report.nodeid, self.reports)
            self.reports = []

    def tell(self, name, reports):
        self.number += 1
        failed = [report for report in reports if report.failed]
        skipped = [report for report in reports if report.skipped]
        text = comment("\n".join(report.longreprtext for report in failed))
        if failed:
            text += "".join(comment(f"{title}:\n{what}") for title, what in failed[0].sections)
        why = ""
        if skipped and not failed:
            why = " # SKIP " + skipped[0].longrepr[2].removeprefix("Skipped: ")
        text += f"{'not ok' if failed else 'ok'} {self.number} - {name}{why}\n"
        text += f"# {sum(report.duration for report in reports):.1f} s\n"
        print(text, end="", flush=True)

    def pytest_sessionfinish(self, exitstatus):
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            print(f"Bail out! pytest: {pytest.ExitCode(exitstatus).name}", flush=True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    # Others ask pytest's own reporter for its terminal, so there is one that nobody sees.
    config.pluginmanager.unregister(name="terminalreporter")
    silent = TerminalReporter(config, open(os.devnull, "w", encoding="utf-8"))
    config.pluginmanager.register(silent, "terminalreporter")
    config.pluginmanager.register(Tap(), "tap")
