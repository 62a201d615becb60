"""The intent log: frames, halves that take turns, and what a replay makes of damage."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from mapfs.errors import DamagedStoreError, StoreError
from mapfs.format import frames
from mapfs.format.extent import Extent
from mapfs.format.frames import Change, Kind
from mapfs.format.records import Counted, Inode, State, Table, id_key, pack_extent
from mapfs.format.totals import Totals
from mapfs.store import log as log_module
from mapfs.store.log import IntentLog
from mapfs.store.replay import Replay
from mapfs.store.store import Store

UUID, BOOT = bytes(range(16)), b"b" * 16
CHANGE = st.tuples(st.integers(0, 255), st.binary(max_size=20), st.none() | st.binary(max_size=20))
FRAMES = st.lists(st.lists(CHANGE, max_size=5), max_size=5)


def half(packed: bytes, generation: int = 7) -> bytes:
    header = frames.pack_half(BOOT, UUID, generation)
    return (header + packed).ljust(8192, b"\0")


@given(FRAMES)
def test_frames(written: list[list[Change]]) -> None:
    packed = b"".join(frames.pack_frame(changes, 7, 99) for changes in written)
    assert list(frames.unpack_frames(half(packed), 7)) == written


@given(FRAMES, st.integers(0, 8191 - 64), st.integers(1, 255))
def test_a_flipped_byte_ends_the_log(written: list[list[Change]], at: int, flip: int) -> None:
    packed = b"".join(frames.pack_frame(changes, 7) for changes in written)
    damaged = bytearray(half(packed))
    damaged[64 + at] ^= flip
    found = list(frames.unpack_frames(bytes(damaged), 7))
    assert found == written[: len(found)]
    ends, end = [], 0
    for changes in written:
        end += len(frames.pack_frame(changes, 7))
        ends.append(end)
    assert len(found) == sum(end <= at for end in ends)


@given(FRAMES, FRAMES)
def test_frames_of_an_earlier_generation_are_not_seen(
    old: list[list[Change]], new: list[list[Change]]
) -> None:
    image = bytearray(half(b"".join(frames.pack_frame(changes, 5) for changes in old)))
    packed = b"".join(frames.pack_frame(changes, 7) for changes in new)
    image[64 : 64 + len(packed)] = packed
    assert list(frames.unpack_frames(bytes(image), 7)) == new


def test_a_frame_that_is_whole_and_makes_no_sense_is_damage() -> None:
    body = b"\1"
    header = frames._FRAME.pack(len(body), 3, 7, 0)
    checksum = frames._CHECKSUM.pack(xxh3_64_intdigest(header + body))
    with pytest.raises(DamagedStoreError):
        list(frames.unpack_frames(half(header + checksum + body), 7))


def test_a_frame_longer_than_the_half_ends_the_log() -> None:
    packed = frames.pack_frame([(1, b"k", b"v" * 10_000)], 7)
    assert list(frames.unpack_frames(half(b"")[:64] + packed[:8000], 7)) == []


@pytest.mark.parametrize(
    ("uuid", "at", "half"),
    [
        (UUID, None, frames.Half(7, BOOT, 0)),
        (bytes(16), None, None),
        *[(UUID, at, None) for at in range(56)],
    ],
)
def test_whose_half_it_is(uuid: bytes, at: int | None, half: frames.Half | None) -> None:
    header = bytearray(frames.pack_half(BOOT, UUID, 7))
    if at is not None:
        header[at] ^= 4
    assert frames.unpack_half(bytes(header), uuid) == half


def test_kinds_and_tables_are_apart() -> None:
    assert all(frames.is_table(table) for table in Table)
    assert not any(frames.is_table(kind) for kind in Kind)


# The log


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "HALF_BYTES", 4096)
    monkeypatch.setattr(log_module, "LOG_BYTES", 8192)


@pytest.fixture
def log(tmp_path: Path, small: None) -> Iterator[IntentLog]:
    """A log with halves of 4 KiB."""
    log = IntentLog(tmp_path / "log", UUID)
    yield log
    log.close()


def change(value: bytes) -> list[Change]:
    return [(Table.XATTRS, b"key", value)]


def replayed(log: IntentLog, durable: int) -> list[tuple[int, bytes | None]]:
    return [(generation, changes[0][2]) for generation, changes in log.replay(durable)]


def test_a_log_begins_closed(log: IntentLog) -> None:
    assert log.is_closed
    log.append(change(b"lost"))
    assert replayed(log, 0) == []


def test_halves_take_turns(log: IntentLog) -> None:
    log.begin(1, 0)
    log.append(change(b"a"))
    log.append(change(b"b"))
    log.begin(2, 0)
    log.append(change(b"c"))
    assert replayed(log, 0) == [(1, b"a"), (1, b"b"), (2, b"c")]
    assert replayed(log, 1) == [(2, b"c")]
    log.begin(3, 1)
    log.append(change(b"d"))
    assert replayed(log, 1) == [(2, b"c"), (3, b"d")]
    assert replayed(log, 3) == []


def test_a_half_that_is_still_needed_is_not_overwritten(log: IntentLog) -> None:
    log.begin(1, 0)
    log.append(change(b"a"))
    log.begin(2, 0)
    log.begin(3, 0)
    assert log.is_closed
    log.append(change(b"lost"))
    assert replayed(log, 0) == [(1, b"a")]


def test_a_log_survives_its_process(log: IntentLog, tmp_path: Path) -> None:
    log.begin(1, 0)
    log.append(change(b"a"))
    other = IntentLog(tmp_path / "log", UUID, read_only=True)
    assert replayed(other, 0) == [(1, b"a")]
    other.close()
    stranger = IntentLog(tmp_path / "log", bytes(16))
    assert replayed(stranger, 0) == []
    stranger.close()


def test_a_full_log_is_closed_and_keeps_what_it_has(log: IntentLog) -> None:
    log.begin(1, 0)
    half_full = []
    for _ in range(100):
        half_full.append(log.is_half_full)
        log.append(change(bytes(100)))
    assert log.is_closed
    fitting = (frames.requests_offset(4096) - 64) // len(frames.pack_frame(change(bytes(100)), 1))
    assert len(replayed(log, 0)) == fitting
    assert abs(half_full.index(True) - fitting / 2) <= 1


def test_requests_are_named_by_their_frames_and_beyond(log: IntentLog) -> None:
    assert log.requests(3) == set()
    log.begin(1, 0)
    log.append(change(b"a"), 11)
    log.append([], 12)
    log.begin(2, 0)
    log.append(change(b"b"))
    assert log.requests(3) == {11, 12}
    log.keep_requests({12: 1})
    log.begin(3, 1)
    log.append(change(b"c"), 13)
    assert log.requests(3) == {12, 13}
    log.keep_requests({14: 4})
    log.begin(4, 3)
    assert log.requests(3) == {13}
    assert log.requests(4) == {13, 14}
    log.forget_requests()
    assert log.requests(3) == set()
    log.append(change(b"d"))
    assert replayed(log, 3) == [(4, b"d")]


def test_of_many_requests_the_latest_are_kept(log: IntentLog) -> None:
    log.begin(1, 0)
    log.keep_requests(dict.fromkeys(range(1, 1000), 0))
    assert log.requests(3) == {999}
    log.keep_requests({7: 0})
    assert log.requests(3) == {7}


def test_the_log_has_blocks(log: IntentLog, tmp_path: Path) -> None:
    assert (tmp_path / "log").stat().st_size == 8192
    assert (tmp_path / "log").stat().st_blocks >= 16


@pytest.mark.parametrize("kind", ["missing", "short", "directory", "link"])
def test_a_log_that_cannot_be_read(tmp_path: Path, small: None, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "short":
        path.write_bytes(bytes(100))
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(os.devnull)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StoreError, match="log"):
        IntentLog(path, UUID, read_only=True)
    assert os.listdir("/proc/self/fd") == before


# Replaying


def test_a_replay_puts_changes_back(store: Store) -> None:
    replay = Replay(store.transaction)
    needed = [replay.is_needed]
    state = State(20, 30, 0, 1, 0, 0, 5)
    counted = Counted(1, Totals(files=1), 4095, 0)
    replay.apply(
        [
            (Table.XATTRS, b"a", b"1"),
            (Table.XATTRS, b"b", b"2"),
            (Kind.STATE, b"", state.pack()),
            (Kind.COUNTED, id_key(16), counted.pack()),
            (Kind.RUN, id_key(1), pack_extent(Extent(5, 2))),
        ]
    )
    replay.apply([(Table.XATTRS, b"a", None), (Kind.RUN, id_key(1), pack_extent(Extent(6, 1)))])
    needed.append(replay.is_needed)
    assert needed == [False, True]
    assert store.transaction.get(Table.XATTRS, b"a") is None
    assert store.transaction.get(Table.XATTRS, b"b") == b"2"
    assert replay.state == state
    assert replay.counted == {16: counted}
    assert replay.runs == {1: Extent(6, 1)}
    replay.apply([(Kind.FOLDED, b"", b"")])
    assert replay.counted == {}


def test_the_part_of_a_directory_before_its_totals(store: Store) -> None:
    directory = Inode.unpack(1, store.transaction.get(Table.INODES, id_key(1)) or b"")
    directory.tree = Totals(7)
    store.transaction.put(Table.INODES, id_key(1), directory.pack())
    directory.uid, directory.tree = 99, Totals()
    replay = Replay(store.transaction)
    replay.apply([(Kind.FIXED, id_key(1), directory.pack_fixed())])
    found = Inode.unpack(1, store.transaction.get(Table.INODES, id_key(1)) or b"")
    assert (found.uid, found.tree) == (99, Totals(7))
    replay.apply([(Kind.FIXED, id_key(77), directory.pack_fixed())])
    assert store.transaction.get(Table.INODES, id_key(77)) is None
    with pytest.raises(DamagedStoreError, match="wrong length"):
        replay.apply([(Kind.FIXED, id_key(1), b"short")])


@pytest.mark.parametrize("kind", [len(Table), max(Kind) + 1, 255])
def test_a_change_of_an_unknown_kind_is_damage(store: Store, kind: int) -> None:
    with pytest.raises(DamagedStoreError, match="unknown kind"):
        Replay(store.transaction).apply([(kind, b"", b"")])
