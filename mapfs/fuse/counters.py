"""How often the requests of each kind were answered, and how long that took.

The transports count in their one thread, for every request: so it is two readings of the clock and
two additions, and everything else is left to whoever looks.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# A list of times has, at index n, how many durations had n bits in nanoseconds: up to 292 years.
# Behind that is their sum.
_BITS: Final = 64
SUM: Final = _BITS
# The accesses to files that are remembered.
_MOST_RECENT: Final = 1024


def new_times() -> list[int]:
    """An empty list of times, for `note_time`."""
    return [0] * (_BITS + 1)


def note_time(times: list[int], nanoseconds: int) -> None:
    """Add a duration to a list of times."""
    times[nanoseconds.bit_length()] += 1
    times[SUM] += nanoseconds


@dataclass(frozen=True, slots=True)
class Timings:
    """How often something was done, how often it failed, and how long it took in all.

    `buckets[n]` counts the durations of n bits in nanoseconds, those from 2**(n-1) to 2**n - 1.
    """

    count: int = 0
    errors: int = 0
    nanoseconds: int = 0
    buckets: tuple[int, ...] = ()

    @classmethod
    def of(cls, times: list[int], errors: int) -> "Timings":
        """What a list of times says."""
        buckets = times[:SUM]
        while buckets and not buckets[-1]:
            buckets.pop()
        return cls(sum(buckets), errors, times[SUM], tuple(buckets))

    def quantile(self, share: float) -> float | None:
        """The duration, in seconds, that this share of all stayed below; None if there were none.

        It is exact to within a factor of two; within a bucket durations are taken for evenly
        spread.
        """
        rank = share * self.count
        for bits, count in enumerate(self.buckets):
            if count and rank <= count:
                low = 1 << bits >> 1
                return (low + (rank / count) * ((1 << bits) - low)) / 1e9
            rank -= count
        return None


class Counters(Generic[Key]):
    """What a transport counts, by the keys that it knows its requests by.

    A transport may do in its own code, with `times[key]`, what `add` does. Belongs to the
    filesystem's thread.
    """

    def __init__(self, name_of: Callable[[Key], str]) -> None:
        """`name_of` gives the operation that a key stands for."""
        self._name_of = name_of
        self.times: defaultdict[Key, list[int]] = defaultdict(new_times)
        self.errors: Counter[Key] = Counter()
        # Bytes that were read; of these, that were not in memory; that were written.
        self.read_bytes = self.cold_bytes = self.written_bytes = 0
        # The inodes of the last accesses to files.
        self.recent: deque[int] = deque(maxlen=_MOST_RECENT)

    def add(self, key: Key, nanoseconds: int, error: int = 0) -> None:
        """Count one answer; `error` is its errno."""
        note_time(self.times[key], nanoseconds)
        if error:
            self.errors[key] += 1

    def operations(self) -> dict[str, Timings]:
        """What was counted so far, by operation."""
        return {
            self._name_of(key): Timings.of(times, self.errors[key])
            for key, times in self.times.items()
        }
