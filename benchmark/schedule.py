"""In which order what is measured, and what happens in one turn."""

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmark.inputs import Inputs
from benchmark.programs import BenchmarkError
from benchmark.results import Failure, Results, Sample
from benchmark.system import System
from benchmark.workloads import Sizes, Turn, Workload


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Each repetition goes through all workloads, each workload through all systems.

    So the systems do the same work shortly after each other, in an order drawn anew each time,
    and the repetitions of one workload are spread over the whole run.
    """

    systems: Sequence[System]
    workloads: Mapping[str, Workload]
    repeat: int
    seed: int

    def steps(self) -> Iterator[tuple[int, str, System]]:
        chance = random.Random(self.seed)  # noqa: S311 (an order, no secret)
        for repetition in range(self.repeat):
            for workload in self.workloads:
                order = list(self.systems)
                chance.shuffle(order)
                for system in order:
                    yield repetition, workload, system

    def __len__(self) -> int:
        return self.repeat * len(self.workloads) * len(self.systems)


def run_plan(plan: Plan, sizes: Sizes, inputs: Inputs, results: Results) -> None:
    """Measure everything of a plan into `results`.

    What fails is noted there, and not tried again.
    """
    failed: set[tuple[str, str]] = set()
    for number, (repetition, workload, system) in enumerate(plan.steps(), 1):
        if (workload, system.name) in failed:
            continue
        _progress(f"{number}/{len(plan)}: repetition {repetition + 1}, {workload}, {system.name}")
        turn = Turn(system, sizes, inputs)
        try:
            results.samples += _measure(turn, plan.workloads[workload], repetition)
        except (BenchmarkError, OSError) as error:
            failed.add((workload, system.name))
            results.failures.append(Failure(workload, system.name, str(error)))
    _progress("")


def _measure(turn: Turn, workload: Workload, repetition: int) -> list[Sample]:
    system = turn.system
    with contextlib.ExitStack() as stack:
        stack.callback(system.abandon)  # does nothing after a good turn
        system.create()
        os.sync()  # what the last one left to be written is not this one's load
        system.mount()
        found = [
            Sample(name, system.name, repetition, value, unit)
            for name, value, unit in workload(turn)
        ]
        system.unmount()
    return found


def _progress(text: str) -> None:
    """Show where the run is, if somebody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
