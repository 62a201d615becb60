"""What the daemon gives back of the memory that it takes."""

import errno
import os
import re
from pathlib import Path

import pytest

from mapfs.fuse import memory
from mapfs.fuse.memory import Memory
from mapfs.store.catalog import Catalog
from mapfs.store.mapped_file import MappedFile
from tests.unit.support import ROOT, assert_sound, content, make, new_bundle, open_fs

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


def resident(name):
    """The bytes of a file, of those mapped, that are in the page tables (proc_pid_smaps(5))."""
    found, is_its = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            is_its = line.endswith(name)
        elif is_its and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


def test_what_is_mapped_can_leave_the_page_tables_and_is_read_again(tmp_path):
    fs = open_fs(new_bundle(tmp_path / "t.mapfs"))
    data = os.urandom(512 << 10)
    number = make(fs, b"f", data)
    fs.commit()
    for _ in range(2):
        assert content(fs, number) == data
        assert fs.lookup(ROOT, b"f").size == len(data)
        assert resident("t.mapfs/store") >= len(data)
        assert resident("t.mapfs/catalog") > 0
        Memory(fs).drop_mapped()
        assert resident("t.mapfs/store") == resident("t.mapfs/catalog") == 0
    assert_sound(fs)
    fs.close()


def test_a_daemon_lives_on_if_its_memory_is_locked(fs, monkeypatch):
    asked = []

    def refuse(_):
        asked.append(1)
        raise OSError(errno.EINVAL, "locked")

    monkeypatch.setattr(MappedFile, "drop_mapped", refuse)
    monkeypatch.setattr(Catalog, "drop_mapped", refuse)
    Memory(fs).drop_mapped()
    assert len(asked) == 2
