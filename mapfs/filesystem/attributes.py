"""The virtual attributes `user.mapfs.*`: the accounting, answered by name.

Values are bare ASCII decimals in bytes or counts, but for the word `fs.state`. `user.mapfs.file`,
`.dir` and `.fs` give a whole group as `k=v k=v`, with `.json` behind them as JSON. They can only
be read. `file.layout` says where a file is in the store; it is in no group.
"""

import enum
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from mapfs.errors import NoAttributeError, ReadOnlyError
from mapfs.filesystem.extents import ExtentMap
from mapfs.filesystem.inode import InodeTable
from mapfs.filesystem.placement import Placement
from mapfs.filesystem.slack import slack_bytes, what_if
from mapfs.format.layout import Layout
from mapfs.format.records import ROOT_INODE, Inode
from mapfs.format.totals import WHAT_IF_SIZES, Totals
from mapfs.store.address_space import page_table_bytes
from mapfs.store.store import Store

PREFIX: Final = b"user.mapfs."

_LAYOUT: Final = PREFIX + b"file.layout"
_MOST_DIGITS: Final = 20

Values = dict[str, Callable[[], int | str | None]]


class Listing(enum.Enum):
    """Where listxattr(2) shows the virtual attributes: nowhere, on the root, or everywhere."""

    HIDDEN = "hidden"
    ROOT_ONLY = "rootonly"
    ALWAYS = "always"


class Attributes:
    """What each inode answers under `user.mapfs.`."""

    def __init__(
        self, store: Store, inodes: InodeTable, extents: ExtentMap, placement: Placement
    ) -> None:
        self._store = store
        self._inodes = inodes
        self._extents = extents
        self._placement = placement

    def get(self, inode: Inode, name: bytes) -> bytes:
        """The value of a virtual attribute. Raises `NoAttributeError` for any other name."""
        if name.startswith(_LAYOUT) and inode.is_file:
            return self._layout(inode, name.removeprefix(_LAYOUT)).pack()
        group, dot, key = name.removeprefix(PREFIX).decode("utf-8", "replace").partition(".")
        values = self._groups(inode).get(group)
        if values is None or (dot and not key):
            raise NoAttributeError("no such attribute")
        if key in ("", "json"):
            return _aggregate(values, as_json=key == "json")
        value = values[key]() if key in values else None
        if value is None:
            raise NoAttributeError("no such attribute")
        return str(value).encode()

    def _layout(self, inode: Inode, behind: bytes) -> Layout:
        """Where the file's bytes are, from an offset on if `.OFFSET` is behind the name."""
        if not behind:
            return self._placement.layout(inode)
        if behind[:1] != b"." or not behind[1:].isdigit() or len(behind) > _MOST_DIGITS:
            raise NoAttributeError("no such attribute")
        return self._placement.layout(inode, int(behind[1:]))

    def refuse_change(self, inode: Inode, name: bytes) -> None:
        """Raise `ReadOnlyError` for an attribute that exists, `NoAttributeError` for another."""
        self.get(inode, name)
        raise ReadOnlyError("the attribute can only be read")

    def names(self, inode: Inode) -> Iterator[bytes]:
        """Every virtual attribute of an inode."""
        for group, values in self._groups(inode).items():
            for key in ("", "json", *values):
                yield PREFIX + f"{group}.{key}".rstrip(".").encode()

    def _groups(self, inode: Inode) -> dict[str, Values]:
        groups: dict[str, Values] = {}
        if inode.is_file:
            groups["file"] = self._file(inode)
        if inode.is_directory:
            groups["dir"] = self._directory(inode)
        if inode.number == ROOT_INODE:
            groups["fs"] = self._filesystem()
        return groups

    def _file(self, inode: Inode) -> Values:
        page_size = self._store.page_size
        values: Values = {
            "bytes": lambda: inode.size,
            "allocated": lambda: inode.pages * page_size,
            "pages": lambda: inode.pages,
            "slack": lambda: slack_bytes(inode, page_size),
            "slack.tail": lambda: inode.tail,
            "slack.prealloc": lambda: inode.prealloc * page_size,
            "extents": lambda: inode.extents,
            "resident": lambda: self._placement.cached_bytes(inode)[0],
            "dirty": lambda: self._placement.cached_bytes(inode)[1],
            "mapped": lambda: sum(self._placement.mapped(inode).values()),
            "windows": lambda: len(self._placement.mapped(inode)),
        }
        for label, size in WHAT_IF_SIZES.items():
            values[f"slack.at.{label}"] = partial(
                what_if, inode, page_size, size, partial(self._extents.mappings, inode.number)
            )
        return values

    def _directory(self, inode: Inode) -> Values:
        values: Values = {}
        for prefix, pick in (("", lambda: inode.own), ("r", lambda: inode.tree)):
            values |= self._totals(prefix, pick)
        return values

    def _totals(self, prefix: str, pick: Callable[[], Totals]) -> Values:
        page_size = self._store.page_size

        def folded(field: str, scale: int = 1) -> Callable[[], int]:
            def value() -> int:
                self._inodes.fold()
                return int(getattr(pick(), field)) * scale

            return value

        values: Values = {
            f"{prefix}files": folded("files"),
            f"{prefix}subdirs": folded("subdirs"),
            f"{prefix}bytes": folded("bytes"),
            f"{prefix}allocated": folded("pages", page_size),
            f"{prefix}slack": folded("slack"),
        }
        for label in WHAT_IF_SIZES:
            values[f"{prefix}slack.at.{label}"] = folded(f"at_{label}")
        return values

    def _filesystem(self) -> Values:
        state, superblock = self._store.state, self._store.superblock
        page_size = self._store.page_size

        def tail() -> int:
            self._inodes.fold()
            return state.tail_bytes

        def prealloc() -> int:
            self._inodes.fold()
            return state.prealloc_pages * page_size

        return {
            "stored_bytes": lambda: state.allocated_pages * page_size - tail() - prealloc(),
            "allocated_bytes": lambda: state.allocated_pages * page_size,
            "slack_bytes": lambda: tail() + prealloc(),
            "slack_tail_bytes": tail,
            "slack_prealloc_bytes": prealloc,
            "metadata_bytes": lambda: superblock.metadata_pages * page_size,
            "free_bytes": lambda: self._store.allocator.free_pages * page_size,
            "store_bytes": lambda: state.store_pages * page_size,
            "limit_bytes": lambda: superblock.limit_pages * page_size,
            "catalog_bytes": lambda: self._store.catalog.size,
            "page_size": lambda: page_size,
            **self._address_space(),
            "leased_bytes": lambda: self._store.allocator.leased_pages * page_size,
            "state": lambda: self._store.condition.value,
        }

    def _address_space(self) -> Values:
        """What mapping the store file costs the process that answers."""
        backing = self._store.backing
        return {
            "address_space_bytes": lambda: backing.statistics().address_space_bytes,
            "windows": lambda: backing.statistics().windows,
            "mappings": backing.mappings,
            "page_table_bytes": page_table_bytes,
        }


def _aggregate(values: Values, *, as_json: bool) -> bytes:
    known = {key: value for key, compute in values.items() if (value := compute()) is not None}
    if as_json:
        return json.dumps(known).encode()
    return " ".join(f"{key}={value}" for key, value in known.items()).encode()
