"""Giving back the store's pages when memory is used up."""

import pytest

from mapfs.fuse import memory
from mapfs.fuse.memory import Memory
from mapfs.store.mapped_file import MappedFile

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "resident", "is_given_back"),
    [(10 * GIB, 20 * GIB, False), (GIB // 4, 20 * GIB, True), (GIB // 4, GIB // 4, False)],
)
def test_pages_are_given_back_if_memory_is_used_up_and_they_are_many(
    fs, monkeypatch, free, resident, is_given_back
):
    given_back = []
    monkeypatch.setattr(memory, "_memory", lambda: (32 * GIB, free))
    monkeypatch.setattr(MappedFile, "resident", lambda _: resident)
    monkeypatch.setattr(MappedFile, "give_back", lambda _: given_back.append(1))
    Memory(fs).look()
    assert bool(given_back) is is_given_back


def test_the_machine_tells_how_much_memory_it_has():
    total, free = memory._memory()
    assert 0 < free < total
