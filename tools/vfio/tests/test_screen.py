# SPDX-License-Identifier: GPL-2.0-only
"""What a person reads: progress, messages, help and completion."""

import os
import re
import subprocess

from lab import (A, B, Delay, Held, Knob, contents, finish, on_a_terminal, path, run, start, unix, write_file)

HERE = os.path.dirname(os.path.abspath(__file__))


def test_progress_at_80_columns_keeps_the_time_left():
    with Delay(B, 2500):
        seen = on_a_terminal("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", contents(50)))
    lines = [line for line in seen.split("\r\x1b[K") if " waiting" in line]
    assert len(lines) > 3, seen
    known = [line for line in lines if "target ready in" in line]
    assert len(known) > 2, ("the time left is not there:", lines)
    for line in lines:
        assert len(line) < 80 and re.search(r"\d:\d\d waiting", line), line
        # What was measured before is not shown any more: nothing goes through
        assert not re.search(r"[KMGT]?i?B/s(?! dirty)", line), ("stale:", line)


def test_a_dumb_terminal_gets_plain_lines():
    with Delay(B, 1500):
        for term in "dumb", "":
            seen = on_a_terminal("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", contents(51)),
                                 term=term)
            assert "waiting" in seen and "\x1b" not in seen, repr(seen)
            assert "\r" not in seen.replace("\r\n", "\n"), repr(seen)


def test_a_failing_move_says_why_once():
    for knob, word in ((Knob(B, "fail_load_at", 100000), "does not accept the stream"),
                       (Knob(A, "fail_save_at", 100000), "its data cannot be read"),
                       (Knob(B, "startup_fail", 12), "Cannot allocate memory")):
        with Held(A, contents(52)) as dev, knob:
            err = run("move", dev.name, B, "--verify", "-q", status=None, fds=(dev.fd,)).stderr
            assert err.count(word) == 1, err
            assert all(line.startswith("vfio-migrate: ") for line in err.splitlines()), err


def test_errors_name_program_option_and_file():
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
        assert len(lines) == 1 and lines[0].startswith("vfio-migrate: "), (args, err)
        assert all(word in err for word in words) and ".vfio-migrate" not in err, (args, err)


def commands():
    return re.findall(r"^  vfio-migrate (\w+)", run("--help").stdout, re.M)


def options_of(command):
    return set(re.findall(r"(--[a-z-]+)", run(command, "-h").stdout.partition("\n\n")[2])) - {"--help"}


def test_each_command_has_help_of_its_own():
    names = commands()
    assert set(names) >= {"info", "save", "load", "send", "receive", "move"}, names
    for name in set(names):
        text = run(name, "-h").stdout
        assert f"vfio-migrate {name} " in text and text == run(name, "--help").stdout, text
    assert "--listen" in options_of("receive") and "--listen" not in options_of("send"), "options"
    assert "--fill-region" not in run("load", "-h").stdout, "options of others"


def bash_says_first(script):
    """What bash offers in the place of the command"""
    got = subprocess.run(["bash", "-c", 'source "$1"; COMP_WORDS=(vfio-migrate ""); COMP_CWORD=1;'
                          '_vfio_migrate; printf "%s\\n" "${COMPREPLY[@]}"', "-", script],
                         stdout=subprocess.PIPE, text=True, check=True)
    return got.stdout.split()


def zsh_says_first(text):
    """The same of zsh: its list of commands, and the options that may stand alone"""
    names = re.findall(r"^\t\t'([^':]+):[^']+'$", re.search(r"^\tcommands=\(\n(.*?)^\t\)", text, re.M | re.S)[1], re.M)
    alone = re.search(r"^\t_arguments -C (.*):command:->command", text, re.M | re.S)[1]
    return names + re.findall(r"--[a-z]+", alone)


def test_completions_offer_the_commands():
    wanted = list(dict.fromkeys(commands())) + ["--help", "--version"]
    got = bash_says_first(os.path.join(HERE, "..", "vfio-migrate.bash"))
    assert sorted(got) == sorted(wanted), "bash"
    with open(os.path.join(HERE, "..", "vfio-migrate.zsh")) as file:
        got = zsh_says_first(file.read())
    assert sorted(got) == sorted(wanted), "zsh"


def test_completions_know_all_commands_and_options():
    script = os.path.join(HERE, "..", "vfio-migrate.bash")
    for name in set(commands()):
        got = subprocess.run(["bash", "-c", 'source "$1"; _vfio_migrate_options "$2"', "-", script, name],
                             stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        assert set(got) - {"--", "--help"} == options_of(name), ("bash:", name, set(got) ^ options_of(name))
    with open(os.path.join(HERE, "..", "vfio-migrate.zsh")) as file:
        text = file.read()
    for name in set(commands()):
        assert re.search(rf"^\t{name}\)", text, re.M) and f"'{name}:" in text, ("zsh:", name)
        for option in options_of(name):
            assert f"{option}[" in text or f"{option}}}" in text, ("zsh:", name, option)


def test_progress_of_a_move(data):
    with Delay(B, 2500):
        seen = on_a_terminal("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", data))
    bars = [bar for bar in seen.split("\r\x1b[K") if bar.startswith("[")]
    waiting = [bar for bar in bars if "waiting" in bar]
    assert len(waiting) > 2, seen
    for word in "[==", "%", ":0", "to go,", "/s dirty", "target ready in":
        assert any(word in bar for bar in waiting), f"no '{word}'"
    assert any("initial" in bar for bar in bars) and max(map(len, bars)) < 80
    assert seen.endswith("\r\x1b[K"), "the bar stays"


def test_progress_in_lines(data):
    with Delay(B, 2500):
        lines = run("move", A, B, "--verify", "--fill-region", "2=" + write_file("in", data)).stderr.splitlines()
    assert 3 <= len(lines) <= 30 and "\x1b" not in "".join(lines)


def test_no_progress_if_quiet(data):
    with Delay(B, 500):
        assert not run("move", A, B, "--verify", "-q", "--fill-region", "2=" + write_file("in", data)).stderr


def test_progress_of_a_load(data):
    run("save", A, "-q", "--fill-region", "2=" + write_file("in", data), "-o", path("snap"))
    with Delay(B, 1500):
        seen = on_a_terminal("load", B, "--verify", "-i", path("snap"))
    assert "arriving" in seen and "ready in" in seen and "%" in seen


def test_progress_of_a_receive(dev):
    with Delay(B, 1500):
        sending = start("send", dev.name, "--to", unix(), "-q", fds=(dev.fd,))
        seen = on_a_terminal("receive", B, "--verify", "--listen", unix())
        finish(sending)
    assert "arriving" in seen and "ready in" in seen
