"""The arithmetic over repetitions: medians, spreads, and ratios with how sure they are. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_CONFIDENCE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Spread:
    """The values of all repetitions, in short."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value at least."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio: the median of the ratios within each repetition, and what bounds it.

    What disturbs a repetition as a whole is not in it. The bounds hold with a confidence of nine
    tenths at least, or reach as far as the repetitions do if these are fewer than five.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return rounded(self.median)
        return f"{rounded(self.median)} ({rounded(self.low)} to {rounded(self.high)})"


def ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """How many times `below` goes into `above`, by repetitions."""
    pairs = sorted(one / max(other, 1e-9) for one, other in zip(above, below, strict=True))
    outside = samples_outside(len(pairs))
    return Interval(statistics.median(pairs), pairs[outside], pairs[-1 - outside])


def samples_outside(count: int) -> int:
    """How many of `count` sorted samples may be left out at each end of an interval.

    The interval from one order statistic to its mirror image holds the median of whatever
    distribution with the probability that neither tail of a binomial with p = 1/2 is hit, the
    sign test's (W. J. Conover, Practical Nonparametric Statistics, 3rd ed., 3.2).
    """
    tail, outside = 0.0, 0
    for hits in range(count // 2):
        tail += math.comb(count, hits) / 2**count
        if 1 - 2 * tail < _CONFIDENCE:
            break
        outside = hits
    return outside


def rounded(value: float) -> str:
    """Three digits, without an exponent; whole numbers as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.6f}"
