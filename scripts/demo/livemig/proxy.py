# SPDX-License-Identifier: GPL-2.0-only
"""A line between two QEMU that breaks where it is told to."""
from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 16


class Proxy:
    """
    Passes one connection on from the Unix socket path to the Unix socket where.
    When byte number at is through, action(self) is called, once, by the thread
    that passes things on; the bytes after it wait for that. Between hold() and
    let_go() nothing is passed on to where, but what was read before.
    """

    def __init__(self, path: str, where: str, at: int = None,
                 action: Callable[[Proxy], Any] = None) -> None:
        self.path = path
        self.where = where
        self.at = at
        self.action = action
        self.passed = 0                 # bytes from the source to the target
        self.acted = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.ends: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def uri(self) -> str:
        return f"unix:{self.path}"

    def hold(self) -> None:
        self.free.clear()

    def let_go(self) -> None:
        self.free.set()

    def cut(self) -> None:
        for end in self.ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass                    # it is cut already

    def close(self) -> None:
        self.cut()
        self.let_go()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(10)
        for end in self.ends + [self.listener]:
            end.close()
        os.unlink(self.path)

    def _serve(self) -> None:
        try:
            source, _ = self.listener.accept()
            target = socket.socket(socket.AF_UNIX)
            target.connect(self.where)
        except OSError:                 # closed before anybody came
            return
        self.ends = [source, target]
        back = threading.Thread(target=self._pass_back, args=(target, source), daemon=True)
        back.start()
        self._pass_on(source, target)
        back.join()

    @staticmethod
    def _pass_back(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK):
                self.free.wait()
                self._pass(data, target)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()

    def _pass(self, data: bytes, target: socket.socket) -> None:
        if self.at is not None and self.at <= self.passed + len(data) and not self.acted.is_set():
            # It may have been told late.
            before = max(0, self.at - self.passed)
            target.sendall(data[:before])
            self.passed += before
            data = data[before:]
            self.acted.set()
            self.action(self)
        target.sendall(data)
        self.passed += len(data)
