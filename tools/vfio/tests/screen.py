#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
screen.py VFIO-MIGRATE BDF-A BDF-B [PATTERN]

Tests what a person reads: progress, messages, help and completion. Otherwise like
two_devices.py, from which it has its helpers.
"""

import os
import re
import subprocess
import sys

import two_devices as lab
from two_devices import A, B, Delay, Held, Knob, check, contents, on_a_terminal, path, run, write_file

TESTS = []
HERE = os.path.dirname(os.path.abspath(__file__))


def test(function):
    TESTS.append(function)
    return function


@test
def progress_at_80_columns_keeps_the_time_left():
    with Delay(B, 2500):
        seen = on_a_terminal("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", contents(50)))
    lines = [line for line in seen.split("\r\x1b[K") if " waiting" in line]
    check(len(lines) > 3, seen)
    known = [line for line in lines if "target ready in" in line]
    check(len(known) > 2, "the time left is not there:", lines)
    for line in lines:
        check(len(line) < 80 and re.search(r"\d:\d\d waiting", line), line)
        # What was measured before is not shown any more: nothing goes through
        check(not re.search(r"[KMGT]?i?B/s(?! dirty)", line), "stale:", line)


@test
def a_dumb_terminal_gets_plain_lines():
    with Delay(B, 1500):
        for term in "dumb", "":
            seen = on_a_terminal("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", contents(51)),
                                 term=term)
            check("waiting" in seen and "\x1b" not in seen, repr(seen))
            check("\r" not in seen.replace("\r\n", "\n"), repr(seen))


@test
def a_failing_move_says_why_once():
    for knob, word in ((Knob(B, "fail_load_at", 100000), "does not accept the stream"),
                       (Knob(A, "fail_save_at", 100000), "its data cannot be read"),
                       (Knob(B, "startup_fail", 12), "Cannot allocate memory")):
        with Held(A, contents(52)) as dev, knob:
            err = run("move", dev.name, B, "--verify", "-q", status=None, fds=(dev.fd,)).stderr
            check(err.count(word) == 1, err)
            check(all(line.startswith("vfio-migrate: ") for line in err.splitlines()), err)


@test
def errors_name_program_option_and_file():
    for args, words in ((("save", A, "-o", "/nonexistent/snap"), ["/nonexistent/snap"]),
                        (("save", A, "-o", path("snap"), "--fill-region", "2=/nonexistent"),
                         ["--fill-region", "/nonexistent"]),
                        (("load", B, "--verify", "-i", "/nonexistent"), ["--input", "/nonexistent"]),
                        (("load", B, "--dump-region", "2=/nonexistent/out", "-i", "/dev/null"), ["/nonexistent/out"]),
                        (("save", A, "--colour"), ["save", "--colour"]),
                        (("save", A, "-o"), ["save", "--output"]),
                        (("save", A, "--json=yes"), ["save", "--json"]),
                        (("send", A, "--to", "x:1", "--timeout", "soon"), ["--timeout", "seconds", "soon"])):
        err = run(*args, status=None).stderr
        lines = err.splitlines()
        check(len(lines) == 1 and lines[0].startswith("vfio-migrate: "), args, err)
        check(all(word in err for word in words) and ".vfio-migrate" not in err, args, err)


def commands():
    return re.findall(r"^  vfio-migrate (\w+)", run("--help").stdout, re.M)


def options_of(command):
    return set(re.findall(r"(--[a-z-]+)", run(command, "-h").stdout.partition("\n\n")[2])) - {"--help"}


@test
def each_command_has_help_of_its_own():
    names = commands()
    check(set(names) >= {"info", "save", "load", "send", "receive", "move"}, names)
    for name in set(names):
        text = run(name, "-h").stdout
        check(f"vfio-migrate {name} " in text and text == run(name, "--help").stdout, text)
    check("--listen" in options_of("receive") and "--listen" not in options_of("send"), "options")
    check("--fill-region" not in run("load", "-h").stdout, "options of others")


def bash_says_first(script):
    """What bash offers in the place of the command."""
    got = subprocess.run(["bash", "-c", 'source "$1"; COMP_WORDS=(vfio-migrate ""); COMP_CWORD=1;'
                          '_vfio_migrate; printf "%s\\n" "${COMPREPLY[@]}"', "-", script],
                         stdout=subprocess.PIPE, text=True, check=True)
    return got.stdout.split()


def zsh_says_first(text):
    """The same of zsh: its list of commands, and the options that may stand alone."""
    names = re.findall(r"^\t\t'([^':]+):[^']+'$", re.search(r"^\tcommands=\(\n(.*?)^\t\)", text, re.M | re.S)[1], re.M)
    alone = re.search(r"^\t_arguments -C (.*):command:->command", text, re.M | re.S)[1]
    return names + re.findall(r"--[a-z]+", alone)


@test
def completions_offer_the_commands():
    wanted = list(dict.fromkeys(commands())) + ["--help", "--version"]
    got = bash_says_first(os.path.join(HERE, "..", "vfio-migrate.bash"))
    check(sorted(got) == sorted(wanted), "bash:", got, wanted)
    with open(os.path.join(HERE, "..", "vfio-migrate.zsh")) as file:
        got = zsh_says_first(file.read())
    check(sorted(got) == sorted(wanted), "zsh:", got, wanted)


@test
def completions_know_all_commands_and_options():
    script = os.path.join(HERE, "..", "vfio-migrate.bash")
    for name in set(commands()):
        got = subprocess.run(["bash", "-c", 'source "$1"; _vfio_migrate_options "$2"', "-", script, name],
                             stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        check(set(got) - {"--", "--help"} == options_of(name), "bash:", name, set(got) ^ options_of(name))
    with open(os.path.join(HERE, "..", "vfio-migrate.zsh")) as file:
        text = file.read()
    for name in set(commands()):
        check(re.search(rf"^\t{name}\)", text, re.M) and f"'{name}:" in text, "zsh:", name)
        for option in options_of(name):
            check(f"{option}[" in text or f"{option}}}" in text, "zsh:", name, option)


if __name__ == "__main__":
    sys.exit(lab.main(TESTS))
