# SPDX-License-Identifier: GPL-2.0-only
"""What is known of the matrix, in a file that outlives a run which was ended."""
from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import matrix

if TYPE_CHECKING:
    from .matrix import Cell, Refusal, Result, Trip


class Book:
    """
    A line for each try of something that has a name; the last of a name counts.
    Without a path nothing outlives this object.
    """

    def __init__(self, path: str = None) -> None:
        self.path = path
        self.tries: dict[str, list[dict[str, Any]]] = {}                 # name -> [line]
        self.run = datetime.datetime.now().isoformat(timespec="seconds")
        if path and os.path.exists(path):
            with open(path) as file:
                self._read(file)

    def _read(self, file: Iterable[str]) -> None:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:          # empty, or the end of a run that was killed
                continue
            self.tries.setdefault(line["name"], []).append(line)

    def add(self, name: str, wrong: Any, **known: Any) -> None:
        line = {"name": name, "run": self.run, "wrong": wrong, **known}
        self.tries.setdefault(name, []).append(line)
        if self.path:
            with open(self.path, "a") as file:
                file.write("\n" + json.dumps(line))

    def right(self, name: str) -> dict[str, Any]:
        """What is known of it, if its last try was right."""
        last = self.tries.get(name, [{"wrong": True}])[-1]
        return None if last["wrong"] else last

    def missing(self, names: Iterable[str]) -> list:
        return [name for name in names if not self.right(name)]

    def runs(self) -> list[str]:
        return sorted({line["run"] for lines in self.tries.values() for line in lines})

    def failures(self) -> list[tuple[str, Any]]:
        """(name, what was wrong) of each try that was not right."""
        return [(name, line["wrong"]) for name, lines in self.tries.items()
                for line in lines if line["wrong"]]


# The names

def trip_title(trip: Trip) -> str:
    words = [trip.machine, "iommufd" if trip.iommufd else "type1",
             "two devices" if trip.two else "one device"] + trip.remarks
    return ", ".join(words)


def title(trip: Trip, cell: Cell) -> str:
    return (f"{cell.source} to {cell.target}, {cell.transport}, "
            f"{'ack' if cell.ack else 'no ack'}; {trip_title(trip)}")


def way_title(way: Callable, iommufd: bool) -> str:
    return f"{way.__doc__.strip().replace('`', '')}, {'iommufd' if iommufd else 'type1'}"


def refusal_title(refusal: Refusal) -> str:
    return f"QEMU {refusal.qemu.version()} refuses: {refusal.what}"


# A matrix's own lines

def add_result(book: Book, result: Result) -> None:
    book.add(title(result.trip, result.cell), result.wrong, facts=result.facts,
             seconds=round(result.seconds, 1))


def results(book: Book, trips: Iterable[Trip]) -> Iterator[matrix.Result]:
    """All that are right, in the order of the trips."""
    for trip in trips:
        for cell in trip.cells:
            line = book.right(title(trip, cell))
            if line:
                yield matrix.Result(trip, cell, [], line["facts"], line["seconds"])


def refused(book: Book) -> Iterator[tuple[matrix.Refusal, str]]:
    for refusal in matrix.REFUSALS:
        line = book.right(refusal_title(refusal))
        if line:
            yield refusal, line["said"]


def missing(book: Book, trips: Iterable[Trip]) -> Iterator[tuple[Trip, list[matrix.Cell]]]:
    """(trip, those of its cells that are not right yet)"""
    for trip in trips:
        cells = [cell for cell in trip.cells if not book.right(title(trip, cell))]
        if cells:
            yield trip, cells


def seen(book: Book, way: Callable, iommufd: bool) -> str:
    """What became of it, if its last try was right."""
    line = book.right(way_title(way, iommufd))
    return line["said"] if line else None
