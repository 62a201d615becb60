"""A claim about mmap, and what was found of it: plain data and the rules of a verdict. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from mapfs.claims.samples import Interval, Spread

if TYPE_CHECKING:
    from mapfs.claims.ground import Ground
    from mapfs.claims.subject import Subject

# A way is better than another if it is so by a twentieth at least, in the whole interval.
MARGIN: Final = 1.05


class Side(StrEnum):
    """Whether a claim speaks for mmap or against it."""

    FOR = "for"
    AGAINST = "against"


class Verdict(StrEnum):
    """Whether a claim holds on this machine."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNKNOWN = "cannot be measured here"


class CannotMeasureError(Exception):
    """This machine does not let a claim be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, over all repetitions."""

    label: str
    unit: str
    spread: Spread


@dataclass(frozen=True, slots=True)
class Series:
    """Medians over something that was varied, as (x, y)."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a claim for one kind of file.

    `factor` is how many times better mmap is than what it is compared with; below 1 it is worse.
    """

    subject: str
    verdict: Verdict
    reason: str
    figures: tuple[Figure, ...] = ()
    series: tuple[Series, ...] = ()
    factor: Interval | None = None


@dataclass(frozen=True, slots=True)
class Axes:
    """What the series of a claim are plotted over."""

    x: str
    y: str
    is_x_bytes: bool = False
    is_y_percent: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that people say of mmap, and how it is looked into.

    `rule` says when it holds. `measure` does it for one kind of file, and raises
    `CannotMeasureError` where it cannot be done. Without `axes` the figures in `unit` are plotted
    as bars.
    """

    name: str
    side: Side
    sentence: str
    method: str
    rule: str
    factor: str
    subjects: tuple[str, ...]
    measure: "Callable[[Ground, Subject], Finding]"
    unit: str = ""
    axes: Axes | None = None


@dataclass(slots=True)
class Result:
    """A claim, and what was found of it for each kind of file."""

    claim: Claim
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """It holds if it does for every kind of file that could be measured."""
        found = {each.verdict for each in self.findings} - {Verdict.UNKNOWN}
        if not found:
            return Verdict.UNKNOWN
        return Verdict.HOLDS if found == {Verdict.HOLDS} else Verdict.FAILS


def judged(factor: Interval, *, also: bool = True) -> Verdict:
    """Whether one way is better: by more than the margin, in the whole of the interval.

    It is not if no value of the interval, or the other condition, says so. In between, the
    repetitions differ by more than the ways do.
    """
    if not also or factor.high < MARGIN:
        return Verdict.FAILS
    return Verdict.HOLDS if factor.low >= MARGIN else Verdict.UNKNOWN


def explained(verdict: Verdict, reason: str) -> str:
    """A reason that also says why nothing can be told, where that is so."""
    noise = "the repetitions differ by more than the ways that are compared: "
    return noise + reason if verdict is Verdict.UNKNOWN else reason
