"""One claim after the other, for each kind of file; what cannot be measured says why."""

from collections.abc import Callable, Iterable, Iterator

from mapfs.claims.claim import CannotMeasureError, Claim, Finding, Result, Verdict
from mapfs.claims.ground import Ground
from mapfs.errors import MapfsError


def measured(
    claims: Iterable[Claim], ground: Ground, on_begin: Callable[[Claim, str], None]
) -> Iterator[Result]:
    """The results, each as soon as it is there. `on_begin` hears of each claim and kind of file."""
    for claim in claims:
        result = Result(claim)
        for label in claim.subjects:
            on_begin(claim, label)
            result.findings.append(_finding(claim, ground, label))
        yield result


def _finding(claim: Claim, ground: Ground, label: str) -> Finding:
    try:
        return claim.measure(ground, ground.subject(label))
    except OSError as error:
        reason = f"{error.filename or claim.name}: {error.strerror}"
    except (CannotMeasureError, MapfsError, MemoryError) as error:
        reason = str(error) or type(error).__name__
    return Finding(label, Verdict.UNKNOWN, reason)
