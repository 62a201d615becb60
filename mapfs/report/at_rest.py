"""`StoreTree`: the tree in a store that is not mounted."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mapfs.errors import MapfsError
from mapfs.filesystem.filesystem import Filesystem
from mapfs.format.records import ROOT_INODE, Inode
from mapfs.report.source import Entry
from mapfs.report.usage import NO_FILE, Usage, usage_of_file, usage_of_tree
from mapfs.store.opening import open_store

_DOT_DOT = 2  # the cookie of the last entry that stands for a directory of its own


class StoreTree:
    """All files of a store, read through `Filesystem` without writing a byte."""

    kind = "store"
    filesystem = "mapfs"

    def __init__(self, path: Path) -> None:
        """Open the store; `close` it. Raises `MapfsError`."""
        self._path = os.fspath(path)
        self._filesystem = Filesystem(open_store(path, read_only=True))
        self.page_size = self._filesystem.store.page_size

    def close(self) -> None:
        """Let others write the store again."""
        self._filesystem.close()

    def root(self) -> Entry:
        """The root directory, under the path of the store."""
        return Entry(self._path, self._path, place=ROOT_INODE)

    def entries(self, directory: Entry) -> Iterator[Entry]:
        """The names in a directory."""
        listed = self._filesystem.readdir(directory.place, _DOT_DOT)
        for name, number in sorted((entry.name, entry.inode) for entry in listed):
            path = os.path.join(directory.path, os.fsdecode(name))
            try:
                yield self._entry(os.fsdecode(name), path, self._filesystem.inode(number))
            except MapfsError as error:
                yield Entry(os.fsdecode(name), path, error=error)

    def totals(self, directory: Entry) -> Usage | None:
        """The recursive totals of a directory."""
        return usage_of_tree(self._attribute(directory.place, b"dir"))

    def _entry(self, name: str, path: str, inode: Inode) -> Entry:
        if inode.is_directory:
            return Entry(name, path, place=inode.number)
        identity = inode.number if inode.nlink > 1 else None
        if not inode.is_file:
            return Entry(name, path, NO_FILE, identity)
        usage = usage_of_file(self._attribute(inode.number, b"file"))
        return Entry(name, path, usage, identity)

    def _attribute(self, number: int, group: bytes) -> dict[str, Any]:
        value = self._filesystem.getxattr(number, b"user.mapfs." + group + b".json")
        values: dict[str, Any] = json.loads(value)
        return values
