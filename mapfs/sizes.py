"""Sizes as people write them: bytes, or with a suffix K, M, G, T or P of 1024."""

import re
from decimal import Decimal
from typing import Final

_UNITS: Final = "KMGTP"
_WORDS: Final = ("byte", "KiB", "MiB", "GiB", "TiB")
_SIZE: Final = re.compile(
    rf"(?:(\d{{1,20}})B?|(\d{{1,20}}(?:\.\d+)?)\s*([{_UNITS}])(?:iB|B)?)", re.IGNORECASE | re.ASCII
)


def parse_size(text: str) -> int:
    """`10G`, `512M`, `1.5GiB` or `4096` in bytes. Raises `ValueError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size (like 4096, 512M or 10G)")
    plain, number, unit = match.groups()
    if plain:
        return int(plain)
    return int(Decimal(number) * 1024 ** (_UNITS.index(unit.upper()) + 1))


def format_size(size: int) -> str:
    """A size for people to read: `4.0K`, `1.5G`."""
    value = float(size)
    for unit in ("", *_UNITS):
        if abs(value) < 1024 or unit == _UNITS[-1]:
            return f"{value:.1f}{unit}" if unit else f"{size}"
        value /= 1024
    raise AssertionError  # the last unit returns


def format_short(size: int) -> str:
    """A size as `format_size` has it, without a decimal that is 0: `4K`."""
    return format_size(size).replace(".0", "")


def bytes_label(size: int) -> str:
    """A size for a text: `1 byte`, `4 KiB`, `1.5 GiB`; with one decimal unless that is 0."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_WORDS) - 1:
        value /= 1024
        unit += 1
    plural = "s" if unit == 0 and size != 1 else ""
    return f"{value:.1f}".removesuffix(".0") + f" {_WORDS[unit]}{plural}"
