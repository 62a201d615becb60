"""`Finding`: one thing that fsck has found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which invariant does not hold, and where."""

    invariant: str
    message: str
