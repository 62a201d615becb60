"""Sets of pages of the machine, held against Python's sets."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from mapfs.store.machine_pages import PAGE_BYTES, MachinePages

_ranges = st.tuples(st.integers(0, 900 * PAGE_BYTES), st.integers(1, 600 * PAGE_BYTES))
_steps = st.lists(st.tuples(st.sampled_from(["add", "discard"]), _ranges), max_size=12)


def touched(offset: int, length: int) -> set[int]:
    return set(range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1))


def within(offset: int, length: int) -> set[int]:
    return set(range(-(-offset // PAGE_BYTES), (offset + length) // PAGE_BYTES))


def pages_of(runs: Iterable[tuple[int, int]]) -> list[int]:
    return [page for offset, length in runs for page in sorted(touched(offset, length))]


@given(_steps, _ranges)
def test_like_a_set(steps: list[tuple[str, tuple[int, int]]], asked: tuple[int, int]) -> None:
    pages, model = MachinePages(), set[int]()
    for action, (offset, length) in steps:
        if action == "add":
            pages.add(offset, length)
            model |= touched(offset, length)
        else:
            pages.discard(offset, length)
            model -= within(offset, length)
        assert pages_of(pages.runs()) == sorted(model)
        assert len(pages) == len(model)
        assert bool(pages) == bool(model)
    assert pages.touches(*asked) == bool(model & touched(*asked))
    near = set(pages_of(pages.runs_near(*asked)))
    assert model & touched(*asked) <= near <= model


@given(_steps, _steps)
def test_union(
    first: list[tuple[str, tuple[int, int]]], second: list[tuple[str, tuple[int, int]]]
) -> None:
    one, other = (MachinePages(run for _, run in steps) for steps in (first, second))
    expected = set(pages_of(one.runs())) | set(pages_of(other.runs()))
    one.update(other)
    assert pages_of(one.runs()) == sorted(expected)


def test_what_is_written_in_one_piece_is_one_run() -> None:
    pages = MachinePages()
    pages.add(PAGE_BYTES - 1, 3 * PAGE_BYTES)
    assert list(pages.runs()) == [(0, 4 * PAGE_BYTES)]
