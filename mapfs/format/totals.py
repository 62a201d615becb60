"""Totals: what a directory, or a tree, holds. A vector of counters that can be added."""

import builtins
import struct
from operator import add, sub
from typing import Final, NamedTuple

from mapfs.errors import DamagedStoreError

# The sum of sizes has 128 bits: a few sparse files of the largest size overflow 64.
_TOTALS = struct.Struct("<qq16sqqqqqq")
_SUM_BYTES: Final = 16
TOTALS_BYTES: Final = _TOTALS.size
# The page sizes that what-if slack is kept for, in bytes, in the order of the fields below.
WHAT_IF_SIZES: Final = {"4k": 4 << 10, "16k": 16 << 10, "64k": 64 << 10, "2m": 2 << 20}


class Totals(NamedTuple):
    """Counts of files and subdirectories, file bytes, allocated pages and slack bytes.

    `at_…` is the slack in bytes if pages were of that size. A file with several names counts
    once. The same type holds a sum and a change of a sum.
    """

    files: int = 0
    subdirs: int = 0
    bytes: int = 0
    pages: int = 0
    slack: int = 0
    at_4k: int = 0
    at_16k: int = 0
    at_64k: int = 0
    at_2m: int = 0

    def plus(self, other: "Totals") -> "Totals":
        """The sum."""
        return Totals(*map(add, self, other))

    def minus(self, other: "Totals") -> "Totals":
        """The difference."""
        return Totals(*map(sub, self, other))

    def pack(self) -> builtins.bytes:
        """`TOTALS_BYTES` bytes. Raises `DamagedStoreError` if a count is out of range."""
        files, subdirs, size, *rest = self
        try:
            total = size.to_bytes(_SUM_BYTES, "little", signed=True)
            return _TOTALS.pack(files, subdirs, total, *rest)
        except (struct.error, OverflowError) as error:
            raise DamagedStoreError(f"a total is out of range ({error})") from error

    @classmethod
    def unpack(cls, value: builtins.bytes) -> "Totals":
        """The inverse of `pack`; `value` must be `TOTALS_BYTES` long."""
        files, subdirs, size, *rest = _TOTALS.unpack(value)
        return cls(files, subdirs, int.from_bytes(size, "little", signed=True), *rest)
