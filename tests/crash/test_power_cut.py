"""The power fails: store, catalog and log are cut together wherever they were synced, and between.

The calls of the store and the log, and those of LMDB, go into one journal (`recording_backing`,
`recording_log`, `recorded_files`). From it the files are made as a disk may hold them at any
moment, and opened as they are, by a machine that has started anew.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapfs.format.superblock import COPY_OFFSETS
from mapfs.store import log as log_module
from mapfs.store.catalog import Catalog
from mapfs.store.mapped_file import MappedFile
from mapfs.store.mkfs import StoreOptions, first_records
from mapfs.store.opening import open_store
from mapfs.store.store import Store
from mapfs.store.transaction import LogSync
from tests.crash.conftest import Recorder
from tests.crash.disk import Loss, RecordedFile
from tests.crash.history import content_of, foreign_byte, tree_of
from tests.crash.journal import LOG, STORE, Journal, Kind, read_journal
from tests.crash.recording_backing import RecordingBacking
from tests.crash.recording_log import RecordingLog
from tests.crash.workload import CommittingFilesystem, History, Operation, Workload, operations
from tests.unit.support import HEADER_PAGES, PAGE, assert_sound

pytestmark = pytest.mark.mount

# Small, so that pages are used again soon, and so that the store grows.
_FIRST_PAGES = 48
_HALF_BYTES = 16 << 10
_MOST_PAGES = 160
# Moments that are not at a sync and are tried all the same: one in so many, and losses for each.
_ONE_MOMENT_IN = 12
_LOSSES_AT_A_SYNC = 3

_numbers = itertools.count()


@dataclass(frozen=True)
class Recording:
    """A run: its calls from mkfs on, which end at `made`, and what it did."""

    journal: Path
    mkfs: int
    made: int
    catalog: int
    history: History


@dataclass(frozen=True)
class Cut:
    """A moment at which the power fails, and which states were acknowledged and begun to be."""

    position: int
    store: RecordedFile
    catalog: RecordedFile
    log: RecordedFile
    acknowledged: int
    begun: int
    is_sync: bool


def record(
    recorder: Recorder, directory: Path, steps: list[Operation], *, unmount: bool
) -> Recording:
    """Run the operations on a new store whose calls are recorded."""
    journal, number = recorder.journal, next(_numbers)
    mkfs = journal.position
    # LMDB's lock file lies beside this link, not among the recorded files.
    link = directory / f"catalog-{number}"
    link.symlink_to(recorder.directory / link.name)
    fs = CommittingFilesystem(_recorded_store(journal, directory / f"store-{number}", link))
    made = journal.position
    workload = Workload(fs, lambda: journal.position)
    history = workload.history

    def begun(sync: LogSync | None) -> None:
        history.begin(sync)
        journal.append(Kind.BEGUN, STORE, history.begun)

    def acknowledged() -> None:
        history.acknowledge()
        journal.append(Kind.ACKNOWLEDGED, STORE, history.acknowledged)

    fs.begun, fs.acknowledged = begun, acknowledged
    for _ in workload.run(steps):
        pass
    workload.assert_contents()
    catalog = link.stat().st_ino
    if unmount:
        fs.close()
    else:
        fs.store.close()
    return Recording(journal.path, mkfs, made, catalog, history)


def _recorded_store(journal: Journal, path: Path, link: Path) -> Store:
    superblock = StoreOptions((HEADER_PAGES + _MOST_PAGES) * PAGE, PAGE).superblock()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    backing = RecordingBacking(MappedFile(fd, 0), journal)
    backing.resize(_FIRST_PAGES * PAGE)
    for offset in COPY_OFFSETS:
        backing.write(offset, superblock.pack())
    backing.sync()
    catalog = Catalog(link)
    catalog.apply(first_records(superblock, _FIRST_PAGES))
    catalog.renew()
    log = RecordingLog(path.with_name(f"{path.name}-log"), superblock.uuid, journal)
    return Store(superblock, backing, catalog, log=log)


def cuts(recording: Recording, random: Random) -> Iterator[Cut]:
    """Every sync, the end, and some moments between."""
    files = {STORE: RecordedFile(), recording.catalog: RecordedFile(), LOG: RecordedFile()}
    store, catalog, log = files.values()
    acknowledged = begun = 0
    position = recording.mkfs
    for each in read_journal(recording.journal, recording.mkfs):
        is_sync = each.kind == Kind.SYNC
        if position >= recording.made and (is_sync or random.randrange(_ONE_MOMENT_IN) == 0):
            yield Cut(position, store, catalog, log, acknowledged, begun, is_sync)
        position = each.end
        if each.kind == Kind.BEGUN:
            begun = each.offset
        elif each.kind == Kind.ACKNOWLEDGED:
            acknowledged = each.offset
        elif each.file in files:
            files[each.file].replay(each)
    yield Cut(position, store, catalog, log, acknowledged, begun, is_sync=True)


def losses(cut: Cut, random: Random) -> Iterator[tuple[Loss, Loss, Loss]]:
    """What each of store, catalog and log loses."""
    if cut.is_sync:
        yield Loss.ALL, Loss.ALL, Loss.ALL
        yield Loss.NONE, Loss.NONE, Loss.NONE
        yield Loss.ALL, Loss.NONE, Loss.NONE
    kinds = list(Loss)
    for _ in range(_LOSSES_AT_A_SYNC if cut.is_sync else 1):
        yield random.choice(kinds), random.choice(kinds), random.choice(kinds)


class Disk:
    """A bundle that is written anew for every power cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        (path / "lock").touch()

    def hold(
        self, cut: Cut, lost: tuple[Loss, Loss, Loss], history: History, random: Random
    ) -> None:
        """Open what is left, without any repair, and compare it with what was promised."""
        _rewrite(self.path / "store", cut.store.after_power_cut(lost[0], random))
        _rewrite(self.path / "catalog", cut.catalog.after_power_cut(lost[1], random))
        _rewrite(self.path / "log", cut.log.after_power_cut(lost[2], random))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_module, "_boot_id", lambda: bytes(16))
            fs = CommittingFilesystem(open_store(self.path))
        try:
            assert_as_promised(fs, cut, history)
            assert_sound(fs)
        finally:
            fs.store.close()


def _rewrite(path: Path, content: bytes | bytearray) -> None:
    """Write a file anew, in place: ext4 flushes one that was cut to nothing when it is closed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def assert_as_promised(fs: CommittingFilesystem, cut: Cut, history: History) -> None:
    """The state is the one last acknowledged, or a later one that was to become durable."""
    tree = tree_of(fs)
    possible = history.states[cut.acknowledged : cut.begun + 1]
    frozen = next((state for state in possible if state.tree == tree), None)
    assert frozen is not None, "an acknowledged state is lost, or an operation is not whole"
    for path, (number, *_) in tree.items():
        assert isinstance(number, int)
        if number in history.files:
            versions = history.files[number].between(frozen.versions[number], cut.position)
            found = content_of(fs, number)
            foreign = foreign_byte(found, versions)
            assert foreign is None, f"{path!r}: byte {foreign} of {len(found)} was never its own"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("power-cut")


@pytest.fixture(autouse=True, scope="module")
def _small_log() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "HALF_BYTES", _HALF_BYTES)
        patch.setattr(log_module, "LOG_BYTES", 2 * _HALF_BYTES)
        yield


@settings(max_examples=15)
@given(steps=operations(), unmount=st.booleans(), seed=st.integers(0, 1 << 32))
def test_a_power_cut_leaves_a_committed_state(
    recorder: Recorder,
    directory: Path,
    steps: list[Operation],
    unmount: bool,  # noqa: FBT001
    seed: int,
) -> None:
    recording = record(recorder, directory, steps, unmount=unmount)
    disk = Disk(directory / "cut.mapfs")
    random = Random(seed)
    for cut in cuts(recording, random):
        for lost in losses(cut, random):
            disk.hold(cut, lost, recording.history, random)
