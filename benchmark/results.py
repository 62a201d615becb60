"""What a run found: samples and failures, as they are written to and read from JSON."""

from dataclasses import dataclass, field
from typing import Final

TIMES: Final = ("µs", "s")  # units in which less is better


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of one repetition."""

    measurement: str
    system: str
    repetition: int
    value: float
    unit: str

    @property
    def speed(self) -> float:
        """The figure as a rate: more is better."""
        return 1 / self.value if self.unit in TIMES else self.value


@dataclass(frozen=True, slots=True)
class Failure:
    """A workload that a system did not get through. It is not tried again."""

    workload: str
    system: str
    reason: str


@dataclass(frozen=True, slots=True)
class SystemDescription:
    """A system as it was measured."""

    name: str
    role: str
    version: str
    settings: str
    caveat: str


@dataclass(slots=True)
class Results:
    """Everything that a run found."""

    systems: list[SystemDescription]
    skipped: dict[str, str]
    machine: dict[str, str]
    options: dict[str, str]
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def measurements(self) -> list[str]:
        """Names in the order in which they were first measured."""
        return list(dict.fromkeys(sample.measurement for sample in self.samples))

    def of(self, measurement: str, system: str) -> list[Sample]:
        """The samples of one system, by repetition."""
        found = [
            sample
            for sample in self.samples
            if (sample.measurement, sample.system) == (measurement, system)
        ]
        return sorted(found, key=lambda sample: sample.repetition)

    def named(self, role: str) -> list[str]:
        """The systems with a role that were measured."""
        return [system.name for system in self.systems if system.role == role]
