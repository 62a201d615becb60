"""All claims, those for mmap first."""

from typing import Final

from mapfs.claims import (
    calling,
    copying,
    crossover,
    editing,
    loading,
    seeking,
    sharing,
    slack,
    thrashing,
)
from mapfs.claims.claim import Claim

CLAIMS: Final[dict[str, Claim]] = {
    module.CLAIM.name: module.CLAIM
    for module in (
        copying,
        calling,
        sharing,
        seeking,
        loading,
        editing,
        slack,
        crossover,
        thrashing,
    )
}
