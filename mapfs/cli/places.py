"""`STORE|MNT[:PATH]`: a place in a filesystem, mounted or not, as the command line names it."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mapfs.errors import EscapeError, MapfsError, NotAStoreError, UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """A path from the top of a store (`directory` is None) or of a directory on a mount.

    `name` is how it was written. `path` is as it was written, too: a slash at its end counts.
    """

    name: str
    store: Path | None
    directory: Path | None
    path: str


def path_inside(place: Place) -> bytes:
    """The path without slashes around it. Raises `UsageError` if it could lead out of the place."""
    from mapfs.transfer.entry import inside

    try:
        return inside(os.fsencode(place.path.strip("/")))
    except EscapeError as error:
        raise UsageError(f"{place.name}: PATH must not have .. in it") from error


def find_place(text: str) -> Place:
    """What `STORE|MNT[:PATH]` means; a store that is mounted is reached through its mount.

    The longest beginning in front of a colon that exists is the store or mount, so that both it
    and PATH may have colons in them. Raises `NotAStoreError`, or `MapfsError` for a directory that
    is on no mapfs, or `OSError`.
    """
    found = list(_splits(text))
    for base, path in found:
        place = _place(text, base, path)
        if place is not None:
            return place
    if found:
        raise MapfsError(f"{found[0][0]}: neither a mapfs store nor on a mount of one")
    raise NotAStoreError(f"{text.partition(':')[0]}: no such store or mount")


def _place(text: str, base: Path, path: str) -> Place | None:
    from mapfs.mounts import mount_of_store
    from mapfs.store.bundle import Bundle

    mount = mount_of_store(base)
    if mount is not None:
        return Place(text, None, mount.mountpoint, path)
    if Bundle(base).is_complete:
        return Place(text, base, None, path)
    return Place(text, None, base, path) if _is_on_mapfs(base) else None


def _splits(text: str) -> Iterator[tuple[Path, str]]:
    """The ways to read it as what exists, and a path there; the longest first."""
    end = len(text)
    while end > 0:
        if Path(text[:end]).exists():
            yield Path(text[:end]), text[end + 1 :]
        end = text.rfind(":", 0, end)


def _is_on_mapfs(directory: Path) -> bool:
    try:
        os.getxattr(directory, "user.mapfs.dir")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
    return True
