"""Counting operations, and what the counts say of durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.fuse.counters import Counters, Timings, new_times, note_time

durations = st.lists(st.integers(min_value=0, max_value=2**62), min_size=1)


def timings(*nanoseconds: int) -> Timings:
    times = new_times()
    for each in nanoseconds:
        note_time(times, each)
    return Timings.of(times, errors=0)


@given(durations)
def test_nothing_is_lost(found: list[int]) -> None:
    counted = timings(*found)
    assert counted.count == sum(counted.buckets) == len(found)
    assert counted.nanoseconds == sum(found)
    for bits, count in enumerate(counted.buckets):
        assert count == sum(each.bit_length() == bits for each in found)


@given(durations, st.floats(min_value=0, max_value=1))
def test_a_quantile_is_exact_to_within_a_factor_of_two(found: list[int], share: float) -> None:
    found.sort()
    rank = min(len(found) - 1, max(0, -int(-share * len(found) // 1) - 1))
    exact = found[rank] / 1e9
    told = timings(*found).quantile(share)
    assert told is not None
    assert exact / 2 * 0.999 <= told <= max(exact, 1e-9) * 2 * 1.001


def test_quantiles_grow() -> None:
    counted = timings(*range(1, 10_000, 7))
    told = [counted.quantile(share / 100) or 0 for share in range(101)]
    assert told == sorted(told)
    assert told[50] == pytest.approx(5000e-9, rel=0.2)


def test_no_quantile_of_nothing() -> None:
    assert timings().quantile(0.5) is None
    assert timings() == Timings()


def test_operations_by_name() -> None:
    counters: Counters[int] = Counters(lambda key: f"number {key}")
    counters.add(7, 1000)
    counters.add(7, 3000, error=2)
    counters.add(9, 5)
    counted = counters.operations()
    assert {name: each.count for name, each in counted.items()} == {"number 7": 2, "number 9": 1}
    assert counted["number 7"].errors == 1
    assert counted["number 7"].nanoseconds == 4000
