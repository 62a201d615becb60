"""Commits that fail again and again, with kills and power cuts between: nothing comes back.

A host that is full, or whose disk refuses, fails a commit; operations go on, the log may fill up
meanwhile, and the commit is tried again.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mapfs.store import log
from mapfs.store.opening import open_store
from mapfs.store.transaction import Commit
from tests.crash.history import tree_of
from tests.crash.killing import copy_of, pretend_another_boot, reopened, small_bundle
from tests.crash.workload import _CHANGES, CommittingFilesystem, Operation, Workload
from tests.unit.support import ROOT, make

# So small that a few operations fill it.
_HALF_BYTES = 16 << 10
_STEPS = 80


@pytest.fixture(autouse=True)
def small_log() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "HALF_BYTES", _HALF_BYTES)
        patch.setattr(log, "LOG_BYTES", 2 * _HALF_BYTES)
        yield


class Life:
    """One life of a filesystem, in steps that chance draws."""

    def __init__(self, base: Path, chance: Random) -> None:
        self.bundle = small_bundle(base / "t.mapfs", chance.choice((160, 12_000)))
        self.left = base / "left.mapfs"
        self.chance = chance
        self.workload = Workload(CommittingFilesystem(open_store(self.bundle)))
        self.fs = self.workload.fs
        self.commit: Commit | None = None

    def step(self) -> None:
        what = self.chance.random()
        if what < 0.06 and self.commit is None:
            self.commit = self.fs.begin_commit()
        elif what < 0.16 and self.commit is not None:
            self.end_commit(fails=self.chance.choice((None, "sync", "apply")))
        elif what < 0.2 and self.commit is None:
            self.sync()
        else:
            self.workload.change(self.operation())
        if self.chance.random() < 0.06:
            self.die(power_fails=self.chance.random() < 0.3)

    def operation(self) -> Operation:
        if self.chance.random() < 0.2:  # what fills the log
            return Operation("setxattr", self.chance.randrange(8), 0, 0, 299)
        places = self.chance.randrange(8), self.chance.randrange(8)
        offset = self.chance.choice((0, 4096, 8192, self.chance.randrange(40_000)))
        length = self.chance.choice((4096, 12_288, self.chance.randrange(1, 20_000)))
        return Operation(self.chance.choice(_CHANGES), *places, offset, length)

    def end_commit(self, fails: str | None) -> None:
        assert self.commit is not None
        commit, self.commit = self.commit, None
        with pytest.MonkeyPatch.context() as patch:
            if fails is not None:
                part = self.fs.store.backing if fails == "sync" else self.fs.store.catalog
                patch.setattr(part, fails, _refuse)
            try:
                commit.write()
            except OSError:
                assert fails
                self.fs.end_commit(succeeded=False)
            else:
                self.fs.end_commit(succeeded=True)

    def sync(self) -> None:
        sync = self.fs.begin_log_sync(data_only=self.chance.random() < 0.5)
        if sync is not None:
            self.fs.end_log_sync(succeeded=sync.write())

    def die(self, *, power_fails: bool = False) -> None:
        """See what another process would find; this one goes on."""
        left = copy_of(self.bundle, self.left)
        expected = tree_of(self.fs)
        if power_fails:
            pretend_another_boot(left, self.fs.store)
        with reopened(left) as found:  # and sound
            if not power_fails and not self.fs.must_commit:
                assert tree_of(found) == expected


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("seed", range(24))
def test_what_is_answered_stays_and_nothing_that_was_undone_comes_back(
    tmp_path: Path, seed: int
) -> None:
    life = Life(tmp_path, Random(seed))
    try:
        for _ in range(_STEPS):
            life.step()
        if life.commit is not None:
            life.end_commit(fails=None)
        life.die()
    finally:
        life.fs.store.close()


def test_a_power_cut_that_leaves_a_part_of_what_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark in the log's header is on the disk, and a frame before it is not.

    The half begins with what the commit that was tried again has made durable.
    """
    half_bytes = 1 << 20  # which this does not fill
    monkeypatch.setattr(log, "HALF_BYTES", half_bytes)
    monkeypatch.setattr(log, "LOG_BYTES", 2 * half_bytes)
    life = Life(tmp_path, Random(1))
    fs = life.fs
    life.commit = fs.begin_commit()
    life.end_commit(fails="sync")
    for number in range(20):
        make(fs, b"%d" % number, b"f" * 5000)
    for number in range(10):
        inode = fs.lookup(ROOT, b"%d" % number)
        fs.unlink(ROOT, b"%d" % number)
        fs.forget(inode.number)
    fs.commit()
    make(fs, b"last", b"l" * 9000)
    life.sync()
    left = copy_of(life.bundle, life.left)
    pretend_another_boot(left, fs.store)
    content = bytearray((left / "log").read_bytes())
    for start in (4096, half_bytes + 4096):
        content[start : start + 4096] = bytes(4096)
    (left / "log").write_bytes(content)
    with reopened(left):  # and sound
        pass
    fs.store.close()
