"""The results as JSON and as Markdown."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

from benchmark.floors import reaches
from benchmark.results import Results
from benchmark.summary import Spread, best_peer, ratio, spread

_NONE: Final = "–"


def as_json(results: Results) -> str:
    """Everything: the machine, the systems, each sample, and what follows from them."""
    whole = {**asdict(results), "statistics": list(_statistics(results))}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _statistics(results: Results) -> Iterator[dict[str, Any]]:
    for measurement in results.measurements:
        for system in (each.name for each in results.systems):
            samples = results.of(measurement, system)
            if not samples:
                continue
            ratios = {
                other: asdict(found)
                for other in (each.name for each in results.systems)
                if (found := ratio(samples, results.of(measurement, other)))
            }
            figures = asdict(spread(samples))
            yield {"measurement": measurement, "system": system, **figures, "ratio_to": ratios}


def as_markdown(results: Results) -> str:
    parts = [
        "# Benchmark\n",
        _described(results),
        "## Systems\n",
        _systems(results),
        "## Medians\n",
        "The median of the repetitions, with the least and the most.\n",
        _medians(results),
        *_ratios_of_each(results),
        *_reach(results),
        *_problems(results),
    ]
    return "\n".join(parts)


def _described(results: Results) -> str:
    facts = {**results.machine, **results.options}
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _systems(results: Results) -> str:
    rows = [
        [each.name, each.version, f"`{each.settings}`", each.caveat] for each in results.systems
    ]
    return table(["system", "version", "settings", "to know"], rows)


def _medians(results: Results) -> str:
    names = [each.name for each in results.systems]
    rows = []
    for measurement in results.measurements:
        found = [results.of(measurement, name) for name in names]
        unit = next(samples[0].unit for samples in found if samples)
        cells = [_spread_cell(spread(samples)) if samples else _NONE for samples in found]
        rows.append([f"{measurement} ({unit})", *cells])
    return table(["", *names], rows)


def _spread_cell(found: Spread) -> str:
    median = rounded(found.median)
    if found.least == found.most:
        return median
    return f"{median} ({rounded(found.least)} to {rounded(found.most)})"


def _ratios_of_each(results: Results) -> Iterator[str]:
    for name in results.named("mapfs"):
        yield f"## Speed of {name} against the others\n"
        yield (
            "The ratio of medians, and in parentheses the median of the ratios in each"
            " repetition. Above 1, mapfs is faster.\n"
        )
        yield _ratios(results, name)


def _reach(results: Results) -> Iterator[str]:
    rows = [
        [each.measurement, each.against, f"{each.floor:g}", rounded(each.measured), verdict]
        for each in reaches(results, "mapfs")
        for verdict in ["yes" if each.reached else "**no**"]
    ]
    if rows:
        yield "## What mapfs is to reach\n"
        yield "Ratios of medians, against the fastest of the other FUSE systems and against ext4.\n"
        yield table(["", "against", "floor", "measured", "reached"], rows)


def _ratios(results: Results, name: str) -> str:
    others = [each.name for each in results.systems if each.name != name]
    rows = []
    for measurement in results.measurements:
        best = best_peer(results, measurement)
        cells = [_ratio_cell(results, measurement, name, other) for other in others]
        first = [_ratio_cell(results, measurement, name, best), best] if best else [_NONE, _NONE]
        rows.append([measurement, *map(str, first), *cells])
    return table(["", "best FUSE peer", "which", *others], rows)


def _ratio_cell(results: Results, measurement: str, name: str, other: str) -> str:
    found = ratio(results.of(measurement, name), results.of(measurement, other))
    return f"{rounded(found.of_medians)} ({rounded(found.paired)})" if found else _NONE


def _problems(results: Results) -> Iterator[str]:
    rows = [[name, "everything", reason] for name, reason in results.skipped.items()]
    rows += [[each.system, each.workload, each.reason] for each in results.failures]
    if rows:
        yield "## Not measured\n"
        yield table(["system", "what", "why"], rows)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def rounded(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")
