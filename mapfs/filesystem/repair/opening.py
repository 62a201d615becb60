"""Repair of what keeps a store from being opened at all: its state's counters, and its root.

Works on the catalog itself. Only stand-ins are written; `repair` then finds out what is right.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mapfs.errors import DamagedStoreError
from mapfs.filesystem.clock import now
from mapfs.filesystem.finding import Finding
from mapfs.filesystem.survey import INODE_BYTES, LAST_ID, is_id, type_of
from mapfs.format.records import (
    FIRST_ID,
    META_LOST,
    META_STATE,
    META_UUID,
    ROOT_INODE,
    Inode,
    State,
    Table,
    id_key,
)
from mapfs.format.superblock import HEADER_BYTES, Superblock, read_superblock
from mapfs.format.totals import TOTALS_BYTES
from mapfs.store.bundle import Bundle, lock_file
from mapfs.store.catalog import Catalog
from mapfs.store.store import read_lost


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A record without which no store opens: what is wrong, and what to put in its place."""

    finding: Finding
    repair: str
    table: Table
    key: bytes
    value: bytes


def find_obstacles(path: Path) -> list[Finding]:
    """What keeps the bundle at `path` from being opened and can be repaired; changes nothing.

    Raises `StoreError` if the bundle is in use, or is none.
    """
    with ExitStack() as undo:
        return [each.finding for each in _obstacles_of(Bundle(path), undo, read_only=True)[1]]


def repair_opening(path: Path) -> Iterator[str]:
    """Let the bundle at `path` be opened; yields a sentence before each change.

    A truncated store is left alone: the rest of it may yet be found. Raises as `find_obstacles`.
    """
    bundle = Bundle(path)
    with ExitStack() as undo:
        catalog, obstacles = _obstacles_of(bundle, undo, read_only=False)
        if obstacles and _state(catalog) is None:
            yield "discard the log: nothing tells which of it is done"
            bundle.log.unlink(missing_ok=True)
        yield from repair_catalog(catalog, obstacles)


def _obstacles_of(
    bundle: Bundle, undo: ExitStack, *, read_only: bool
) -> tuple[Catalog, list[Obstacle]]:
    """The open catalog and what is wrong with it; `undo` closes it."""
    bundle.require()
    undo.callback(os.close, bundle.take_lock(exclusive=not read_only))
    fd = os.open(bundle.store, os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(os.close, fd)
    lock_file(fd, bundle.store.resolve(), exclusive=not read_only)
    superblock = read_superblock(os.pread(fd, HEADER_BYTES, 0))
    if not bundle.catalog.stat().st_size:
        raise DamagedStoreError(f"{bundle.catalog} is empty")
    catalog = undo.enter_context(
        Catalog(bundle.catalog, read_only=read_only, lock=not read_only, thorough=True)
    )
    if catalog.get(Table.META, META_UUID) != superblock.uuid:
        return catalog, []
    pages = os.lseek(fd, 0, os.SEEK_END) // superblock.page_size
    return catalog, list(obstacles_in(catalog, superblock, pages))


def repair_catalog(catalog: Catalog, obstacles: Iterable[Obstacle]) -> Iterator[str]:
    """Put the replacements into a catalog."""
    for each in obstacles:
        yield each.repair
        changes: list[dict[bytes, bytes | None]] = [{} for _ in Table]
        changes[each.table][each.key] = each.value
        catalog.apply(changes)
        catalog.renew()


def obstacles_in(catalog: Catalog, superblock: Superblock, pages: int) -> Iterator[Obstacle]:
    """What is wrong in the catalog of a store file that has so many pages."""
    found = _state(catalog)
    state = _possible(found, superblock, min(pages, superblock.limit_pages))
    if state != found:
        what = "there is no state" if found is None else "the state's counters are impossible"
        finding = Finding("accounting", what)
        yield Obstacle(finding, "mend the state", Table.META, META_STATE, state.pack())
    try:
        read_lost(superblock, catalog, state)
    except DamagedStoreError as error:
        finding = Finding("record-decodes", str(error))
        yield Obstacle(finding, "forget which bytes are lost", Table.META, META_LOST, b"")
    root = catalog.get(Table.INODES, id_key(ROOT_INODE)) or b""
    if not _is_directory(root):
        finding = Finding("tree-connected", "there is no root directory")
        key, value = id_key(ROOT_INODE), _new_root(root)
        yield Obstacle(finding, "mend the root directory", Table.INODES, key, value)


def _possible(found: State | None, superblock: Superblock, pages: int) -> State:
    """A state with which a store opens; repair counts anew what it is wrong about."""
    if found is None:
        return State(FIRST_ID, pages, 0, 0, 0, 0, 0)
    state = replace(found)
    if not superblock.metadata_pages <= state.store_pages <= superblock.limit_pages:
        state.store_pages = pages
    if not is_id(state.next_id):
        state.next_id = FIRST_ID
    for counter in ("allocated_pages", "inodes", "tail_bytes", "prealloc_pages"):
        if getattr(state, counter) >= LAST_ID:
            setattr(state, counter, 0)
    return state


def _state(catalog: Catalog) -> State | None:
    try:
        return State.unpack(catalog.get(Table.META, META_STATE) or b"")
    except DamagedStoreError:
        return None


def _is_directory(value: bytes) -> bool:
    try:
        return Inode.unpack(ROOT_INODE, value).is_directory
    except DamagedStoreError:
        return False


def _new_root(value: bytes) -> bytes:
    """The root with what is left of its record."""
    if len(value) >= INODE_BYTES and type_of(value) == stat.S_IFDIR:
        return value[:INODE_BYTES] + bytes(2 * TOTALS_BYTES)
    root = Inode(ROOT_INODE, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), nlink=2)
    root.atime = root.mtime = root.ctime = root.btime = now()
    root.parent = ROOT_INODE
    return root.pack()
