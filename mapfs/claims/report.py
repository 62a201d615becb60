"""The results as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mapfs.claims.claim import Figure, Finding, Result, Series


def as_json(results: Sequence[Result], facts: Mapping[str, str]) -> str:
    """Everything that was found, and what of."""
    described = {"machine": dict(facts), "claims": [_result(result) for result in results]}
    return json.dumps(described, indent=2, ensure_ascii=False)


def _result(result: Result) -> dict[str, Any]:
    claim = result.claim
    return {
        "name": claim.name,
        "side": claim.side,
        "claim": claim.sentence,
        "measured": claim.method,
        "rule": claim.rule,
        "factor_of": claim.factor,
        "verdict": result.verdict,
        "findings": [_finding(finding) for finding in result.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.subject,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "factor": None if finding.factor is None else asdict(finding.factor),
        "figures": [_figure(figure) for figure in finding.figures],
        "series": [_series(series) for series in finding.series],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"label": figure.label, "unit": figure.unit, **asdict(figure.spread)}


def _series(series: Series) -> dict[str, Any]:
    return {"label": series.label, "points": [list(point) for point in series.points]}
