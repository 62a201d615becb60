"""Sizes as people write them in figures: `1 KiB`, `64 MiB`."""

from typing import Final

_UNITS: Final = ("byte", "KiB", "MiB", "GiB", "TiB")


def bytes_label(size: int) -> str:
    """A size with the largest unit of which it is a multiple, or with one decimal."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    plural = "s" if unit == 0 and size != 1 else ""
    return f"{value:.1f}".removesuffix(".0") + f" {_UNITS[unit]}{plural}"
