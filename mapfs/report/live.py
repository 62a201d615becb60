"""`LiveTree`: a directory that the kernel shows, on a mounted mapfs or on any filesystem."""

import errno
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from mapfs.mounts import filesystem_type
from mapfs.report.ordinary import usage_at
from mapfs.report.source import Entry
from mapfs.report.usage import NO_FILE, Usage, usage_of_file, usage_of_tree

_NOT_MAPFS: Final = (errno.ENODATA, errno.ENOTSUP)


class LiveTree:
    """The tree at a path. What lies on mapfs is asked for its attributes, all else looked at.

    Symbolic links are not followed, but for the path itself.
    """

    def __init__(self, path: str, *, one_filesystem: bool = False) -> None:
        """`one_filesystem` leaves out directories where others are mounted. Raises `OSError`."""
        self._path = path
        self._found = os.stat(path)
        self._one_filesystem = one_filesystem
        self._not_mapfs: set[int] = set()  # devices
        self._top = os.path.realpath(path) if os.path.islink(path) else path
        group = "dir" if stat.S_ISDIR(self._found.st_mode) else "file"
        is_mapfs = _attribute(self._top, group) is not None
        self.kind = "mount" if is_mapfs else "directory"
        self.filesystem = "mapfs" if is_mapfs else filesystem_type(self._found.st_dev)
        self.page_size = os.statvfs(path).f_frsize

    def root(self) -> Entry:
        """The path that was given, be it a directory or a file."""
        return self._entry(self._path, self._top, self._found)

    def entries(self, directory: Entry) -> Iterator[Entry]:
        """The names in a directory; what is gone before it is looked at is left out.

        Raises `PermissionError` also for a directory that may be listed and not searched.
        """
        with os.scandir(directory.path) as listing:
            names = sorted(os.fsencode(each.name) for each in listing)
        for name in map(os.fsdecode, names):
            path = os.path.join(directory.path, name)
            try:
                found = os.lstat(path)
                if not self._is_elsewhere(found):
                    yield self._entry(name, path, found)
            except FileNotFoundError:
                continue
            except PermissionError:
                raise
            except OSError as error:
                yield Entry(name, path, error=error)

    def totals(self, directory: Entry) -> Usage | None:
        """What mapfs keeps of a tree, whatever its size; None elsewhere."""
        values = _attribute(directory.path, "dir")
        return None if values is None else usage_of_tree(values)

    def _is_elsewhere(self, found: os.stat_result) -> bool:
        return self._one_filesystem and found.st_dev != self._found.st_dev

    def _entry(self, name: str, path: str, found: os.stat_result) -> Entry:
        if stat.S_ISDIR(found.st_mode):
            return Entry(name, path)
        identity = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
        return Entry(name, path, self._usage(path, found), identity)

    def _usage(self, path: str, found: os.stat_result) -> Usage:
        if not stat.S_ISREG(found.st_mode):
            return NO_FILE
        values = None if found.st_dev in self._not_mapfs else self._ask(path, found.st_dev)
        return usage_at(path, found) if values is None else usage_of_file(values)

    def _ask(self, path: str, device: int) -> dict[str, Any] | None:
        try:
            values = _attribute(path, "file")
        except PermissionError:  # who may not read a file may not read its attributes
            return None
        if values is None:
            self._not_mapfs.add(device)
        return values


def _attribute(path: str, group: str) -> dict[str, Any] | None:
    """A group of mapfs attributes, None where there is none. Raises `OSError`."""
    try:
        value = os.getxattr(path, f"user.mapfs.{group}.json", follow_symlinks=False)
    except OSError as error:
        if error.errno in _NOT_MAPFS:
            return None
        raise
    values: dict[str, Any] = json.loads(value)
    return values
