"""What would mislead LMDB is found before it looks: keys out of order, pages free twice."""

import contextlib
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb
import pytest
from click.testing import CliRunner

from mapfs.cli import mapfs
from mapfs.errors import DamagedStoreError
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.extent import Extent
from mapfs.format.records import Table, id_key, pack_extent, pair_key
from mapfs.store import catalog as catalog_module
from mapfs.store.catalog import Catalog
from mapfs.store.lmdb_pages import check_pages
from mapfs.store.opening import open_store
from tests.unit.support import PAGE, ROOT, findings, make, open_fs

Changes = dict[bytes, bytes | None]
OUT_OF_ORDER = r"page \d+ of the catalog has keys out of order"
# Checks a catalog of any size as if it were large: all of it only if the opening is thorough.
AS_LARGE = {0: 1}
FREE = b""


# The file as LMDB has it


class Node(NamedTuple):
    """Where a key and a value are in the file."""

    key_at: int
    key: bytes
    value_at: int
    size: int


def nodes(data: bytes, page: int) -> list[Node]:
    (lower,) = struct.unpack_from("<H", data, page * PAGE + 12)
    found = []
    for offset in struct.unpack_from(f"<{(lower - 16) // 2}H", data, page * PAGE + 16):
        at = page * PAGE + offset
        low, high, _, length = struct.unpack_from("<4H", data, at)
        key = data[at + 8 : at + 8 + length]
        found.append(Node(at + 8, key, at + 8 + length, low | high << 16))
    return found


def is_branch(data: bytes, page: int) -> bool:
    return bool(data[page * PAGE + 10] & 1)


def pages_of(data: bytes, root: int) -> Iterator[int]:
    """The pages of a tree."""
    yield root
    if is_branch(data, root):
        for node in nodes(data, root):
            low, high, top = struct.unpack_from("<3H", data, node.key_at - 8)
            yield from pages_of(data, low | high << 16 | top << 32)


def roots(data: bytes) -> dict[bytes, int]:
    """The roots of the trees, by the names of the tables; `FREE` has the list of free pages."""
    newest = max((0, PAGE), key=lambda head: struct.unpack_from("<Q", data, head + 16 + 128))
    free, main = (
        struct.unpack_from("<Q", data, newest + 16 + 24 + which * 48 + 40)[0] for which in (0, 1)
    )
    tables = {
        node.key: struct.unpack_from("<Q", data, node.value_at + 40)[0]
        for node in nodes(data, main)
    }
    return {FREE: free, **tables}


def keys_in(data: bytes, table: Table, *, branches: bool) -> list[Node]:
    """The keys that LMDB searches by, of the branches of a tree or of its leaves."""
    found = []
    for page in pages_of(data, roots(data)[table.name.lower().encode()]):
        if is_branch(data, page) == branches:
            found.extend(nodes(data, page)[1 if branches else 0 :])
    return found


def flip(catalog: Path, at: int, bit: int) -> None:
    with catalog.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def put(path: Path, table: Table, changes: Changes) -> None:
    with Catalog(path) as catalog:
        catalog.apply([changes if each is table else {} for each in Table])


def check(path: Path, level: int = 1) -> None:
    with path.open("rb") as file:
        check_pages(file.fileno(), 1 << 40, level=level)


# Keys


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """A catalog whose table of links has branches on two levels, and keys of many lengths."""
    chance = random.Random(1)
    changes: Changes = {
        id_key(number) + chance.randbytes(chance.choice((0, 1, 8, 200))): chance.randbytes(100)
        for number in range(0, 12_000, 3)
    }
    put(tmp_path / "catalog", Table.LINKS, changes)
    return tmp_path / "catalog"


def is_consistent(path: Path) -> bool:
    """Whether LMDB finds each record of the links under its key, and the next ones behind it."""
    with (
        lmdb.open(str(path), subdir=False, lock=False, readonly=True, max_dbs=20) as environment,
        environment.begin() as transaction,
    ):
        links = environment.open_db(b"links", transaction, create=False)
        records = list(transaction.cursor(links))
        return records == sorted(records) and all(
            transaction.get(key, db=links) == value for key, value in records
        )


@pytest.mark.parametrize("branches", [True, False])
def test_no_flipped_bit_in_a_key_misleads_a_search_unseen(catalog: Path, *, branches: bool) -> None:
    chance = random.Random(2)
    candidates = keys_in(catalog.read_bytes(), Table.LINKS, branches=branches)
    found = 0
    for node in chance.choices(candidates, k=60):
        at, bit = node.key_at + chance.randrange(len(node.key)), chance.randrange(8)
        flip(catalog, at, bit)
        try:
            check(catalog)
        except DamagedStoreError:
            found += 1
        else:
            assert is_consistent(catalog)
        flip(catalog, at, bit)
    assert found > 10
    check(catalog)


def test_a_branch_that_leads_astray_is_named_when_the_catalog_is_opened(catalog: Path) -> None:
    node = keys_in(catalog.read_bytes(), Table.LINKS, branches=True)[-1]
    flip(catalog, node.key_at, 0)
    assert not is_consistent(catalog)
    with pytest.raises(DamagedStoreError, match=OUT_OF_ORDER) as caught:
        Catalog(catalog, read_only=True, lock=False)
    assert len(str(caught.value).splitlines()) == 1


def test_branches_out_of_order_are_found_without_reading_leaves(catalog: Path) -> None:
    flip(catalog, keys_in(catalog.read_bytes(), Table.LINKS, branches=True)[0].key_at, 0)
    with pytest.raises(DamagedStoreError, match=OUT_OF_ORDER):
        check(catalog, level=2)


def test_a_leaf_that_is_another_branchs_is_found(catalog: Path) -> None:
    """Two branches exchanged: every page is in order, but not where it is."""
    first, second = pages_in_order(catalog.read_bytes(), Table.LINKS)[:2]
    with catalog.open("r+b") as file:
        for at, page in ((first[0], second[1]), (second[0], first[1])):
            file.seek(at)
            file.write(struct.pack("<3H", page & 0xFFFF, page >> 16 & 0xFFFF, page >> 32))
    with pytest.raises(DamagedStoreError, match=OUT_OF_ORDER):
        check(catalog)


def pages_in_order(data: bytes, table: Table) -> list[tuple[int, int]]:
    """Of each branch of the root where its page's number is in the file, and the number."""
    root = roots(data)[table.name.lower().encode()]
    found = []
    for node in nodes(data, root):
        low, high, top = struct.unpack_from("<3H", data, node.key_at - 8)
        found.append((node.key_at - 8, low | high << 16 | top << 32))
    return found


# A catalog that is too large to look at all of it


def test_no_file_gets_extents_of_another(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extent of file N begins at page N, so that each answer shows whose it is."""
    changes: Changes = {
        pair_key(number, page): pack_extent(Extent(number, 1))
        for number in range(16, 1000)
        for page in range(3)
    }
    put(bundle / "catalog", Table.EXTENTS, changes)
    monkeypatch.setattr(catalog_module, "_CHECKED_LEVELS", AS_LARGE)
    branches = keys_in((bundle / "catalog").read_bytes(), Table.EXTENTS, branches=True)
    refused = 0
    for node in branches:
        for bit in (1, 4):
            flip(bundle / "catalog", node.key_at + 7, bit)
            refused += refusals(bundle)
            flip(bundle / "catalog", node.key_at + 7, bit)
    assert refused


def refusals(bundle: Path) -> int:
    """How many searches for extents were refused; all others must be right, or find nothing."""
    count = 0
    with contextlib.closing(open_store(bundle, read_only=True)) as store:
        extents = ExtentMap(store.transaction)
        for number in range(16, 1000):
            try:
                found = [extents.find(number, 1), *extents.mappings(number, 1)]
            except DamagedStoreError as error:
                assert "out of order" in str(error)
                count += 1
                continue
            assert all(each is None or each.start == number for each in found)
    return count


# The list of free pages


@pytest.fixture
def worn(tmp_path: Path) -> Path:
    """A catalog with several records of free pages, as a reader makes LMDB keep them."""
    path = tmp_path / "worn"
    with Catalog(path) as catalog:
        for commit in range(6):
            changes: Changes = {id_key(number): bytes([commit]) * 100 for number in range(20)}
            catalog.apply([changes for _ in Table])
        catalog.renew()
    check(path)
    return path


def free_records(path: Path) -> list[Node]:
    data = path.read_bytes()
    root = roots(data)[FREE]
    assert not is_branch(data, root)
    return [node for node in nodes(data, root) if struct.unpack_from("<Q", data, node.value_at)[0]]


def listed(path: Path, node: Node) -> list[int]:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data, node.value_at)
    return list(struct.unpack_from(f"<{count}Q", data, node.value_at + 8))


def list_free(path: Path, node: Node, pages: list[int]) -> None:
    """Let a record list other pages, as many as before."""
    assert len(pages) == len(listed(path, node))
    with path.open("r+b") as file:
        file.seek(node.value_at + 8)
        file.write(struct.pack(f"<{len(pages)}Q", *pages))


def twice_in_a_record(path: Path) -> None:
    node = max(free_records(path), key=lambda node: node.size)
    first, _, *others = listed(path, node)
    list_free(path, node, [first, first, *others])


def out_of_order(path: Path) -> None:
    node = max(free_records(path), key=lambda node: node.size)
    list_free(path, node, listed(path, node)[::-1])


def twice_in_two_records(path: Path) -> None:
    one, other = sorted(free_records(path), key=lambda node: node.size)[-2:]
    shared = listed(path, other)[0]
    pages = sorted({shared, *listed(path, one)}, reverse=True)
    pages.remove(next(page for page in pages if page != shared))
    list_free(path, one, pages)


def behind_the_end_in_two_records(path: Path) -> None:
    """Pages that were given out and never written are free, and the file may end before them."""
    last = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        for head in (0, PAGE):
            file.seek(head + 16 + 120)
            file.write(struct.pack("<Q", last))
    for node in sorted(free_records(path), key=lambda node: node.size)[-2:]:
        list_free(path, node, [last, *listed(path, node)[1:]])


def larger_than_the_catalog(path: Path) -> None:
    """A record that has room for more pages than there are, with a count that is possible."""
    node = min(free_records(path), key=lambda node: node.value_at)
    limit = 8 * (path.stat().st_size // PAGE + 1)
    room = (node.value_at // PAGE + 1) * PAGE - node.value_at
    size = room // 8 * 8
    assert size > limit
    with path.open("r+b") as file:
        file.seek(node.key_at - 8)
        file.write(struct.pack("<H", size))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (twice_in_a_record, "list of free pages is out of order"),
        (out_of_order, "list of free pages is out of order"),
        (twice_in_two_records, r"page \d+ of the catalog is free twice"),
        (behind_the_end_in_two_records, r"page \d+ of the catalog is free twice"),
        (larger_than_the_catalog, "list of free pages is damaged"),
    ],
)
def test_a_list_of_free_pages_that_would_ruin_the_catalog(
    worn: Path, damage: Callable[[Path], None], match: str
) -> None:
    damage(worn)
    with pytest.raises(DamagedStoreError, match=match):
        Catalog(worn)


def test_the_list_may_not_name_its_own_page(worn: Path) -> None:
    node = max(free_records(worn), key=lambda node: node.size)
    own = roots(worn.read_bytes())[FREE]
    others = [page for page in listed(worn, node) if page != own][1:]
    list_free(worn, node, sorted([own, *others], reverse=True))
    with pytest.raises(DamagedStoreError, match="free and in use"):
        check(worn)


def test_records_of_free_pages_out_of_order_are_found(worn: Path) -> None:
    """Their keys are numbers of transactions, which compare as numbers."""
    free_pages = nodes(worn.read_bytes(), roots(worn.read_bytes())[FREE])
    assert len(free_pages) > 1
    flip(worn, free_pages[0].key_at + 1, 0)
    with pytest.raises(DamagedStoreError, match=OUT_OF_ORDER):
        check(worn)


# Catalogs as they are


@pytest.mark.parametrize("seed", range(4))
def test_what_lmdb_writes_is_in_order(tmp_path: Path, seed: int) -> None:
    """Random changes, large values among them, with a reader that keeps pages from being reused."""
    chance = random.Random(seed)
    path = tmp_path / "catalog"
    kept = set[bytes]()
    with Catalog(path) as catalog:
        for _ in range(60):
            changes = random_changes(chance, kept)
            kept |= {key for key, value in changes.items() if value is not None}
            kept -= {key for key, value in changes.items() if value is None}
            tables = chance.sample(list(Table), 3)
            catalog.apply([changes if each in tables else {} for each in Table])
            if chance.random() < 0.7:
                catalog.renew()
            check(path)


def random_changes(chance: random.Random, kept: set[bytes]) -> Changes:
    changes: Changes = {}
    for _ in range(chance.choice((1, 20, 400))):
        number = id_key(chance.randrange(5000))
        key = chance.choice((number, number[::-1], number * chance.randrange(1, 40)))
        changes[key] = bytes(chance.choice((0, 8, 100, 100, 1000, 9000)))
    share = chance.choice((0, 0.1, 0.5, 1))
    for key in chance.sample(sorted(kept), int(len(kept) * share)):
        changes[key] = None
    return changes


@pytest.mark.parametrize("seed", range(2))
def test_stores_stay_in_order_while_files_come_and_go(bundle: Path, seed: int) -> None:
    chance = random.Random(seed)
    made: list[bytes] = []
    with contextlib.closing(open_fs(bundle)) as fs:
        for commit in range(25):
            for number in range(chance.choice((3, 30))):
                made.append(b"%d %d " % (commit, number) + b"n" * chance.randrange(150))
                fs.forget(make(fs, made[-1], b"x" * chance.choice((0, 10, PAGE + 1))))
            chance.shuffle(made)
            remove(fs, [made.pop() for _ in range(chance.randrange(len(made) + 1))])
            fs.commit()
            check(bundle / "catalog")
        assert not findings(fs)


def remove(fs: Filesystem, names: list[bytes]) -> None:
    for name in names:
        fs.unlink(ROOT, name)


# fsck


@pytest.mark.parametrize("is_large", [True, False])
def test_a_repair_refuses_keys_out_of_order_and_changes_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_large: bool
) -> None:
    if is_large:
        monkeypatch.setattr(catalog_module, "_CHECKED_LEVELS", AS_LARGE)
    with contextlib.closing(open_fs(bundle)) as fs:
        for number in range(300):
            make(fs, b"file %d" % number, b"content")
    node = keys_in((bundle / "catalog").read_bytes(), Table.INODES, branches=True)[0]
    flip(bundle / "catalog", node.key_at, 7)
    (bundle / "log").unlink()  # whoever opens the store for writing makes it
    shutil.copytree(bundle, tmp_path / "copy")
    for words in (["fsck"], ["fsck", "--repair"]):
        result = CliRunner().invoke(mapfs, [*words, os.fspath(bundle)], standalone_mode=False)
        assert result.exception is None
        assert result.return_value == 8
        assert "keys out of order" in " ".join(result.output.split())
    assert not (bundle / "log").exists()
    for name in ("catalog", "store"):
        assert (bundle / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()
