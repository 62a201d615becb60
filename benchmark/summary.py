"""The arithmetic over samples: medians, ratios and how sure they are. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.results import Results, Sample
from mapfs.claims.samples import samples_outside

_ALLOWED: Final = 0.95  # slower by five hundredths


@dataclass(frozen=True, slots=True)
class Spread:
    """The samples of one system in one measurement."""

    median: float
    least: float
    most: float
    unit: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """How fast one system is against another: above 1 it is faster.

    `paired` is the median of the ratios within each repetition; what disturbs a repetition as a
    whole is not in it. `low` and `high` bound it with a confidence of at least nine tenths, or as
    far as the samples reach if they are fewer than five.
    """

    of_medians: float
    paired: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Slower by more than five hundredths, beyond the noise: even `high` says so."""
        return self.high < _ALLOWED


def spread(samples: Sequence[Sample]) -> Spread:
    values = [sample.value for sample in samples]
    return Spread(statistics.median(values), min(values), max(values), samples[0].unit)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Ratio | None:
    """The speed of one system against another's; None if no repetition has both."""
    others = {sample.repetition: sample.speed for sample in theirs}
    pairs = sorted(
        sample.speed / others[sample.repetition] for sample in ours if sample.repetition in others
    )
    if not pairs:
        return None
    outside = samples_outside(len(pairs))
    return Ratio(
        of_medians=median_speed(ours) / median_speed(theirs),
        paired=statistics.median(pairs),
        low=pairs[outside],
        high=pairs[-1 - outside],
    )


def median_speed(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.speed for sample in samples)


def best_peer(results: Results, measurement: str) -> str | None:
    """The peer with the best median, if any was measured."""
    peers = [name for name in results.named("peer") if results.of(measurement, name)]
    return max(peers, key=lambda name: median_speed(results.of(measurement, name)), default=None)
