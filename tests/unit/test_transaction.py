"""Two generations over the catalog read like one sorted dictionary, at every moment."""

import errno
import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import MapfsError
from mapfs.format.extent import Extent
from mapfs.format.records import Table
from mapfs.store.backing import MemoryBacking
from mapfs.store.generation import Generation
from mapfs.store.store import Store
from mapfs.store.transaction import Commit, Transaction
from tests.unit.support import memory_store

TABLE = Table.XATTRS
KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(byte % 4 for byte in key))
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=2), max_size=8)
Changes = dict[bytes, bytes | None]


class Modelled:
    """A transaction, and the dictionary that it must look like."""

    def __init__(self) -> None:
        self.store = memory_store()
        self.transaction = self.store.transaction
        self.expected: dict[bytes, bytes] = {}
        self.commit: Commit | None = None

    def change(self, changes: Changes) -> None:
        for key, value in changes.items():
            if value is None:
                self.transaction.delete(TABLE, key)
                self.expected.pop(key, None)
            else:
                self.transaction.put(TABLE, key, value)
                self.expected[key] = value

    def step(self, what: str) -> None:
        """Begin a commit, or end the one under way."""
        if what == "begin" and self.commit is None:
            self.commit = self.transaction.freeze()
        elif what == "finish" and self.commit is not None:
            self.commit.write()
            self.transaction.finish()
            self.commit = None
        elif what == "abort" and self.commit is not None:
            self.transaction.abort()
            self.commit = None

    def compare(self, start: bytes, stop: bytes) -> None:
        ordered = sorted(self.expected.items())
        assert list(self.transaction.scan(TABLE, start, stop)) == [
            record for record in ordered if start <= record[0] < stop
        ]
        assert list(self.transaction.descend(TABLE, stop, start)) == [
            record for record in reversed(ordered) if start <= record[0] <= stop
        ]
        for key in itertools.chain(self.expected, (b"\0", b"\1\1")):
            assert self.transaction.get(TABLE, key) == self.expected.get(key)


@given(
    st.lists(st.tuples(CHANGES, st.sampled_from(["begin", "finish", "abort", ""])), max_size=8),
    KEYS,
    KEYS,
)
def test_layers_look_like_one_dictionary(
    steps: list[tuple[Changes, str]], one: bytes, other: bytes
) -> None:
    modelled = Modelled()
    low, high = sorted((one, other))
    for changes, what in steps:
        modelled.change(changes)
        modelled.step(what)
        modelled.compare(low, high)
        modelled.compare(b"\0", b"\xff")
    modelled.step("finish")
    modelled.step("begin")
    modelled.step("finish")
    modelled.compare(b"\0", b"\xff")
    assert dict(modelled.store.catalog.scan(TABLE, b"\0", b"\xff")) == modelled.expected
    modelled.store.close()


@pytest.fixture
def transaction(store: Store) -> Transaction:
    return store.transaction


def layered(transaction: Transaction) -> Iterator[None]:
    """Put k = 1 in the catalog, k = 2 in the committing and k = 3 in the running generation."""
    transaction.put(TABLE, b"k", b"1")
    commit = transaction.freeze()
    commit.write()
    transaction.finish()
    yield
    transaction.put(TABLE, b"k", b"2")
    transaction.freeze()
    yield
    transaction.put(TABLE, b"k", b"3")
    yield


def test_the_newest_layer_answers(transaction: Transaction) -> None:
    for number, _ in enumerate(layered(transaction), 1):
        assert transaction.get(TABLE, b"k") == b"%d" % number
        assert list(transaction.scan(TABLE, b"a", b"z")) == [(b"k", b"%d" % number)]
        assert list(transaction.descend(TABLE, b"z", b"a")) == [(b"k", b"%d" % number)]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_deletion_hides_what_is_below(transaction: Transaction, depth: int) -> None:
    for _ in itertools.islice(layered(transaction), depth):
        pass
    transaction.delete(TABLE, b"k")
    assert transaction.get(TABLE, b"k") is None
    assert list(transaction.scan(TABLE, b"a", b"z")) == []
    assert list(transaction.descend(TABLE, b"z", b"a")) == []


def test_a_put_after_a_frozen_deletion_is_seen(transaction: Transaction) -> None:
    next(layered(transaction))
    transaction.delete(TABLE, b"k")
    transaction.freeze()
    assert transaction.get(TABLE, b"k") is None
    transaction.put(TABLE, b"k", b"new")
    assert list(transaction.scan(TABLE, b"a", b"z")) == [(b"k", b"new")]


def test_abort_merges_back_and_newer_changes_win(transaction: Transaction) -> None:
    transaction.put(TABLE, b"a", b"old")
    transaction.put(TABLE, b"b", b"old")
    transaction.freed(Extent(5, 1))
    transaction.data_written()
    transaction.freeze()
    transaction.put(TABLE, b"b", b"new")
    transaction.delete(TABLE, b"c")
    transaction.freed(Extent(7, 1))
    transaction.abort()
    assert transaction.changes == 3
    assert list(transaction.scan(TABLE, b"a", b"z")) == [(b"a", b"old"), (b"b", b"new")]
    commit = transaction.freeze()
    assert commit.generation.data_written
    commit.write()
    assert transaction.finish() == [Extent(5, 1), Extent(7, 1)]
    assert list(transaction.scan(TABLE, b"a", b"z")) == [(b"a", b"old"), (b"b", b"new")]


def test_what_is_dirty(transaction: Transaction) -> None:
    seen = [(transaction.is_dirty, transaction.changes)]
    transaction.put(TABLE, b"a", b"b")
    seen.append((transaction.is_dirty, transaction.changes))
    transaction.freeze()
    seen.append((transaction.is_dirty, transaction.changes))
    transaction.data_written()
    seen.append((transaction.is_dirty, transaction.changes))
    assert seen == [(False, 0), (True, 1), (False, 0), (True, 0)]


def test_one_commit_at_a_time(transaction: Transaction) -> None:
    transaction.freeze()
    with pytest.raises(AssertionError):
        transaction.freeze()


def test_ending_needs_a_beginning(transaction: Transaction) -> None:
    with pytest.raises(AssertionError):
        transaction.finish()
    with pytest.raises(AssertionError):
        transaction.abort()


def test_an_empty_generation_is_false() -> None:
    generation = Generation()
    assert not generation
    generation.data_written = True
    assert generation


class RecordingBacking(MemoryBacking):
    """Notes the order of what a commit does, and fails on request."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(1 << 16)
        self.log = log
        self.fails: set[str] = set()

    def sync(self) -> None:
        self.note("sync")

    def punch(self, offset: int, length: int) -> None:
        self.note(f"punch {offset} {length}")

    def note(self, what: str) -> None:
        self.log.append(what)
        if what.split(maxsplit=1)[0] in self.fails:
            raise OSError(errno.EIO, "as asked")


@pytest.fixture
def recording(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> tuple[Transaction, RecordingBacking]:
    backing = RecordingBacking([])
    apply = store.catalog.apply

    def noted(changes: "list[Changes]") -> None:
        backing.log.append("apply")
        apply(changes)

    monkeypatch.setattr(store.catalog, "apply", noted)
    return Transaction(store.catalog, backing, 4096), backing


def test_the_order_of_a_commit(recording: tuple[Transaction, RecordingBacking]) -> None:
    transaction, backing = recording
    transaction.put(TABLE, b"k", b"v")
    transaction.freed(Extent(3, 2))
    transaction.freeze().write()
    assert backing.log == ["sync", "apply", f"punch {3 * 4096} {2 * 4096}"]


def test_data_alone_needs_no_catalog(recording: tuple[Transaction, RecordingBacking]) -> None:
    transaction, backing = recording
    transaction.data_written()
    transaction.freeze().write()
    assert backing.log == ["sync"]


def test_data_that_cannot_be_synced_is_not_committed(
    recording: tuple[Transaction, RecordingBacking],
) -> None:
    transaction, backing = recording
    backing.fails = {"sync"}
    transaction.put(TABLE, b"k", b"v")
    with pytest.raises(OSError, match="as asked"):
        transaction.freeze().write()
    assert backing.log == ["sync"]
    transaction.abort()
    assert transaction.get(TABLE, b"k") == b"v"


def test_a_host_that_cannot_punch_does_not_undo_a_commit(
    recording: tuple[Transaction, RecordingBacking],
) -> None:
    transaction, backing = recording
    backing.fails = {"punch"}
    transaction.put(TABLE, b"k", b"v")
    transaction.freed(Extent(3, 2))
    transaction.freeze().write()
    assert transaction.finish() == [Extent(3, 2)]
    assert transaction.get(TABLE, b"k") == b"v"


def test_a_commit_is_written_in_another_thread(transaction: Transaction) -> None:
    transaction.put(TABLE, b"k", b"v")
    worker = threading.Thread(target=transaction.freeze().write)
    worker.start()
    transaction.put(TABLE, b"l", b"w")
    worker.join()
    transaction.finish()
    assert list(transaction.scan(TABLE, b"a", b"z")) == [(b"k", b"v"), (b"l", b"w")]


def test_a_catalog_that_refuses_is_a_failed_commit(
    transaction: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction.put(TABLE, b"x" * 600, b"longer than LMDB's keys")
    with pytest.raises(MapfsError):
        transaction.freeze().write()
    transaction.abort()
    transaction.delete(TABLE, b"x" * 600)
    assert transaction.is_dirty
