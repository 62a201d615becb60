"""The colours of slack, on a terminal and on a page: from blue, little, to orange, much.

Blue and orange can be told apart with every common kind of colour blindness.
"""

from typing import Final

# The percentage of allocated bytes that each colour goes up to.
SHADES: Final = (
    (2, "#3b6ea5"),
    (5, "#6f9fc8"),
    (10, "#b7d0e2"),
    (25, "#f3d9a4"),
    (50, "#eb9d4f"),
    (100, "#c8501e"),
)


def shade(share: float) -> str:
    """The colour for slack that is this part of the allocated bytes, from 0 to 1."""
    return next((colour for bound, colour in SHADES if 100 * share < bound), SHADES[-1][1])
