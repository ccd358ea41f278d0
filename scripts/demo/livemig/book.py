# SPDX-License-Identifier: GPL-2.0-only
"""What is known of the matrix, in a file that outlives a run which was ended."""
import datetime
import json
import os

from . import matrix


class Book:
    """
    A line for each try of something that has a name; the last of a name counts.
    Without a path nothing outlives this object.
    """

    def __init__(self, path=None):
        self.path = path
        self.tries = {}                 # name -> [line]
        self.run = datetime.datetime.now().isoformat(timespec="seconds")
        if path and os.path.exists(path):
            with open(path) as file:
                self._read(file)

    def _read(self, file):
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:          # empty, or the end of a run that was killed
                continue
            self.tries.setdefault(line["name"], []).append(line)

    def add(self, name, wrong, **known):
        line = {"name": name, "run": self.run, "wrong": wrong, **known}
        self.tries.setdefault(name, []).append(line)
        if self.path:
            with open(self.path, "a") as file:
                file.write("\n" + json.dumps(line))

    def right(self, name):
        """What is known of it, if its last try was right."""
        last = self.tries.get(name, [{"wrong": True}])[-1]
        return None if last["wrong"] else last

    def missing(self, names):
        return [name for name in names if not self.right(name)]

    def runs(self):
        return sorted({line["run"] for lines in self.tries.values() for line in lines})

    def failures(self):
        """(name, what was wrong) of each try that was not right."""
        return [(name, line["wrong"]) for name, lines in self.tries.items()
                for line in lines if line["wrong"]]


# The names

def trip_title(trip):
    words = [trip.machine, "iommufd" if trip.iommufd else "type1",
             "two devices" if trip.two else "one device"] + trip.remarks
    return ", ".join(words)


def title(trip, cell):
    return (f"{cell.source} to {cell.target}, {cell.transport}, "
            f"{'ack' if cell.ack else 'no ack'}; {trip_title(trip)}")


def refusal_title(refusal):
    return f"QEMU {refusal.qemu.version()} refuses: {refusal.what}"


# A matrix's own lines

def add_result(book, result):
    book.add(title(result.trip, result.cell), result.wrong, facts=result.facts,
             seconds=round(result.seconds, 1))


def results(book, trips):
    """All that are right, in the order of the trips."""
    for trip in trips:
        for cell in trip.cells:
            line = book.right(title(trip, cell))
            if line:
                yield matrix.Result(trip, cell, [], line["facts"], line["seconds"])


def refused(book):
    for refusal in matrix.REFUSALS:
        line = book.right(refusal_title(refusal))
        if line:
            yield refusal, line["said"]


def missing(book, trips):
    """(trip, those of its cells that are not right yet)"""
    for trip in trips:
        cells = [cell for cell in trip.cells if not book.right(title(trip, cell))]
        if cells:
            yield trip, cells
