# SPDX-License-Identifier: GPL-2.0-only
"""
Samples, and what is computed of them.

A sample is a line "KEY <tab> X <tab> VALUE"; the same KEY and X come once a repetition.
The n-th of one key and the n-th of another were measured next to each other, so ratios are
taken pair by pair, and only then is there a median.
"""
import os
import statistics
from dataclasses import dataclass


@dataclass
class Spread:
    """A median, and the smallest and largest of what it is the median of."""
    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values), len(values))

    def scaled(self, factor):
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)

    def as_dict(self):
        return {"median": self.median, "min": self.low, "max": self.high, "n": self.count}


@dataclass
class Line:
    """A straight line through points, and how well it fits."""
    slope: float
    base: float
    r2: float

    @classmethod
    def fit(cls, points):
        """None if there are not two different x."""
        if len({x for x, _ in points}) < 2:
            return None
        mean_x = statistics.fmean(x for x, _ in points)
        mean_y = statistics.fmean(y for _, y in points)
        sxx = sum((x - mean_x) ** 2 for x, _ in points)
        sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
        syy = sum((y - mean_y) ** 2 for _, y in points)
        slope = sxy / sxx
        return cls(slope, mean_y - slope * mean_x, sxy * sxy / (sxx * syy) if syy else 1.0)

    def as_dict(self):
        return {"slope": self.slope, "base": self.base, "r2": self.r2}


class Samples:
    """All samples of a run. Questions that find nothing answer None or an empty list."""

    def __init__(self, lines=()):
        self.values = {}                # key -> x -> values
        for line in lines:
            if line.strip():
                self._add(*line.rstrip("\n").split("\t"))

    def _add(self, key, value_of_x, value):
        self.values.setdefault(key, {}).setdefault(float(value_of_x), []).append(float(value))

    @classmethod
    def read(cls, folder):
        lines = []
        for name in sorted(os.listdir(folder)):
            if name.endswith(".tsv"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    # A program that died in the middle of a line
                    lines += [line for line in file if line.count("\t") == 2 and
                              line.endswith("\n")]
        return cls(lines)

    def xs(self, key):
        return sorted(self.values.get(key, {}))

    def get(self, key, value_of_x=None):
        """A Spread; without x the key has only one."""
        at = self.values.get(key)
        if not at:
            return None
        values = next(iter(at.values())) if value_of_x is None else at.get(value_of_x)
        return Spread.of(values) if values else None

    def ratio(self, over, under, value_of_x=None, under_x=None):
        """The Spread of over / under, pair by pair."""
        a, b = self.values.get(over, {}), self.values.get(under, {})
        if value_of_x is None:
            value_of_x = next(iter(a), None)
        if under_x is None:
            under_x = value_of_x if value_of_x in b else next(iter(b), None)
        a, b = a.get(value_of_x, []), b.get(under_x, [])
        # A key that is sampled more than once in a repetition
        if a and b and len(a) % len(b) == 0:
            b = [value for value in b for _ in range(len(a) // len(b))]
        pairs = [p / q for p, q in zip(a, b) if q]
        return Spread.of(pairs) if pairs else None

    def medians(self, key):
        return [(x, statistics.median(v)) for x, v in sorted(self.values.get(key, {}).items())]

    def line(self, key):
        return Line.fit(self.medians(key))

    def slope(self, key):
        """The Spread of the slopes of lines, one through the values of each repetition."""
        runs = zip(*(values for _, values in sorted(self.values.get(key, {}).items())))
        lines = [Line.fit(list(zip(self.xs(key), run))) for run in runs]
        slopes = [line.slope for line in lines if line]
        return Spread.of(slopes) if slopes else None

    def summary(self):
        return {key: {f"{x:g}": Spread.of(values).as_dict() for x, values in at.items()}
                for key, at in self.values.items()}


def read_machine(folder):
    """Name and value pairs of where it was measured."""
    machine = {}
    for name in ("host.machine", "l1.machine"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                machine.update(line.rstrip("\n").split("\t", 1) for line in file if "\t" in line)
    return machine
