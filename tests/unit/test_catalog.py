"""The catalog against a sorted dictionary, and what it does with files that are none."""

import errno
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapfs.errors import DamagedStoreError, MapfsError, NoSpaceError, NotAStoreError
from mapfs.format.records import Table
from mapfs.store.catalog import Catalog, _from_lmdb
from tests.unit.support import memory_store

Changes = dict[bytes, bytes | None]
KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=12)


def change(catalog: Catalog, table: Table, changes: Changes) -> None:
    catalog.apply([changes if each is table else {} for each in Table])
    catalog.renew()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog") as catalog:
        yield catalog


@given(st.lists(CHANGES, max_size=4), st.binary(max_size=3), st.binary(max_size=3))
def test_it_is_a_sorted_dictionary(generations: list[Changes], start: bytes, stop: bytes) -> None:
    start, stop = start or b"\0", stop or b"\0"
    store = memory_store()
    catalog, expected = store.catalog, dict[bytes, bytes]()
    for changes in generations:
        change(catalog, Table.XATTRS, changes)
        for key, value in changes.items():
            expected.pop(key, None)
            if value is not None:
                expected[key] = value
    ordered = sorted(expected.items())
    assert list(catalog.scan(Table.XATTRS, start, stop)) == [
        record for record in ordered if start <= record[0] < stop
    ]
    assert list(catalog.descend(Table.XATTRS, start, stop)) == [
        record for record in reversed(ordered) if stop <= record[0] <= start
    ]
    assert catalog.count(Table.XATTRS) == len(expected)
    assert all(catalog.get(Table.XATTRS, key) == value for key, value in ordered)
    store.close()


def test_an_empty_catalog(catalog: Catalog) -> None:
    assert catalog.get(Table.META, b"uuid") is None
    assert list(catalog.scan(Table.META, b"\0", b"\xff")) == []
    assert list(catalog.descend(Table.META, b"\xff", b"\0")) == []
    assert catalog.count(Table.META) == 0
    assert catalog.size > 0


def test_tables_are_apart(catalog: Catalog) -> None:
    catalog.apply([{b"key": table.name.encode()} for table in Table])
    catalog.renew()
    for table in Table:
        assert catalog.get(table, b"key") == table.name.encode()


def test_changes_are_seen_after_renew_only(catalog: Catalog) -> None:
    catalog.apply([{b"k": b"v"} for _ in Table])
    assert catalog.get(Table.META, b"k") is None
    catalog.renew()
    assert catalog.get(Table.META, b"k") == b"v"


def test_changes_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog") as catalog:
        change(catalog, Table.META, {b"k": b"v"})
    with Catalog(tmp_path / "catalog", read_only=True, lock=False) as catalog:
        assert catalog.get(Table.META, b"k") == b"v"


def test_read_only_writes_nothing(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog", lock=False) as catalog:
        change(catalog, Table.META, {b"k": b"v"})
    (tmp_path / "catalog").chmod(0o400)
    before = (tmp_path / "catalog").read_bytes()
    with Catalog(tmp_path / "catalog", read_only=True, lock=False) as catalog:
        assert catalog.get(Table.META, b"k") == b"v"
        with pytest.raises(MapfsError):
            change(catalog, Table.META, {b"k": None})
    assert (tmp_path / "catalog").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["catalog"]


def test_deleting_what_is_not_there_is_no_error(catalog: Catalog) -> None:
    change(catalog, Table.META, {b"nothing": None})
    assert catalog.count(Table.META) == 0


def test_all_changes_or_none(catalog: Catalog) -> None:
    bad = b"x" * 600  # LMDB's keys end at 511 bytes
    with pytest.raises(MapfsError):
        catalog.apply([{b"a": b"b", bad: b"c"} if table is Table.META else {} for table in Table])
    catalog.renew()
    assert catalog.get(Table.META, b"a") is None


def test_a_full_catalog_is_no_space(catalog: Catalog) -> None:
    catalog._environment.set_mapsize(1 << 20)
    with pytest.raises(NoSpaceError):
        change(catalog, Table.META, {b"%d" % number: bytes(4000) for number in range(500)})


@pytest.mark.parametrize("data", [b"not LMDB" * 1000, b"\0" * 8192])
@pytest.mark.parametrize("read_only", [False, True])
def test_another_file_is_no_catalog(tmp_path: Path, data: bytes, *, read_only: bool) -> None:
    (tmp_path / "catalog").write_bytes(data)
    with pytest.raises((NotAStoreError, DamagedStoreError), match="catalog"):
        Catalog(tmp_path / "catalog", read_only=read_only, lock=False)


def test_another_lmdb_file_is_no_catalog(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "catalog"), subdir=False, lock=False, max_dbs=1):
        pass
    with pytest.raises(NotAStoreError, match="no mapfs catalog"):
        Catalog(tmp_path / "catalog", read_only=True, lock=False)


def test_a_missing_file_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(MapfsError):
        Catalog(tmp_path / "catalog", read_only=True, lock=False)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mdb_txn_commit: No space left on device", errno.ENOSPC),
        ("mdb_txn_commit: Disk quota exceeded", errno.ENOSPC),
        ("mdb_txn_commit: Input/output error", errno.EIO),
    ],
)
def test_lmdb_errors_become_ours(text: str, code: int) -> None:
    assert _from_lmdb(lmdb.Error(text)).errno == code
