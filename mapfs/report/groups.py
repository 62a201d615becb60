"""Files put together by what they have in common: their suffix, or about the same size."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mapfs.report.usage import Usage
from mapfs.sizes import format_short

# Each bucket of the histogram holds the sizes above the bound before it, up to its own.
_FIRST_BOUND: Final = 1 << 10
_STEP_BITS: Final = 2
_LONGEST_SUFFIX: Final = 12


@dataclass(slots=True)
class Groups:
    """The usage of all files that a walk has met, by suffix and by bucket of size."""

    by_type: dict[str, Usage] = field(default_factory=dict)
    by_size: dict[int, Usage] = field(default_factory=dict)

    def add(self, name: str, usage: Usage) -> None:
        """Count one file."""
        kind, bucket = suffix_of(name), bucket_of(usage.size)
        self.by_type[kind] = self.by_type.get(kind, Usage()).plus(usage)
        self.by_size[bucket] = self.by_size.get(bucket, Usage()).plus(usage)

    def histogram(self) -> Iterator[tuple[int, Usage]]:
        """The buckets from the smallest size met to the largest, without gaps."""
        if self.by_size:
            for bucket in range(min(self.by_size), max(self.by_size) + 1):
                yield bucket, self.by_size.get(bucket, Usage())


def suffix_of(name: str) -> str:
    """The last suffix in lower case with its dot: `.py`; empty if there is none.

    Numbers are none, nor is what is long or has a space: `.so` for `libm.so.6`, nothing for `a.1`.
    """
    stem, dot, suffix = name.rpartition(".")
    while suffix.isdigit():
        stem, dot, suffix = stem.rpartition(".")
    if not stem.strip(".") or not suffix or len(suffix) > _LONGEST_SUFFIX or " " in suffix:
        return ""
    return (dot + suffix).lower()


def bucket_of(size: int) -> int:
    """The bucket of a file of `size` bytes: 0 if it has none, 1 for 1 KiB at most, 2 for 4 KiB."""
    if size == 0:
        return 0
    beyond = (size - 1) // _FIRST_BOUND
    return 1 + -(-beyond.bit_length() // _STEP_BITS)


def bound_of(bucket: int) -> int:
    """The size of the largest file that a bucket takes."""
    return _FIRST_BOUND << (_STEP_BITS * (bucket - 1)) if bucket else 0


def label_of(bucket: int) -> str:
    """A bucket in words: `empty`, `up to 1K`, `1K to 4K`."""
    if bucket == 0:
        return "empty"
    upper = format_short(bound_of(bucket))
    if bucket == 1:
        return f"up to {upper}"
    return f"{format_short(bound_of(bucket - 1))} to {upper}"
