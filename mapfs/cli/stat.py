"""mapfs stat: what stat(2) and the virtual attributes say of files and directories."""

import errno
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from mapfs.cli.terminal import complain
from mapfs.errors import MapfsError
from mapfs.mounts import mount_of_device
from mapfs.names import printable

_NAME_WIDTH: Final = 23  # that of fs.slack_prealloc_bytes and its like


@click.command("stat", short_help="Print what stat(2) and the attributes say of files.")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(readable=False, path_type=Path),
)
@click.option("--extents", is_flag=True, help="Also where each file is in the store file.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a path.")
def command(*, paths: tuple[Path, ...], extents: bool, as_json: bool) -> int:
    """Print what stat and the mapfs attributes say of each PATH on a mount.

    \b
    mapfs stat mnt/data.db
    mapfs stat --extents mnt/data.db
    mapfs stat --json mnt mnt/lib | jq '.[].dir.rslack'
    """
    described, failed = [], False
    for path in paths:
        try:
            described.append(describe(path, extents=extents))
        except (OSError, MapfsError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            complain(f"{path}: {reason}")
            failed = True
    if as_json:
        click.echo(json.dumps(described, indent=2))
    elif described:
        click.echo("\n\n".join(_as_text(each) for each in described))
    return int(failed)


def describe(path: Path, *, extents: bool = False) -> dict[str, Any]:
    """stat(2) of `path`, its advice, and under `file`, `dir` and `fs` what mapfs counts.

    Of a regular file under `kernel` what the kernel's cache for the mount holds, if it may be
    known, and with `extents` where it is.

    Raises `OSError`, and `MapfsError` if the path is not on a mapfs.
    """
    found = path.lstat()
    if mount_of_device(found.st_dev) is None:
        raise MapfsError("not on a mapfs")
    described = {"path": os.fspath(path), **_of_stat(found)}
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        groups = {group: _attributes(path, group) for group in ("file", "dir", "fs")}
        described |= {group: values for group, values in groups.items() if values is not None}
        described["advice"] = os.getxattr(path, "user.mapfs.advice").decode()
    if stat.S_ISREG(found.st_mode):
        described |= _kernel(path, found)
        described |= {"extents": _extents(path)} if extents else {}
    return described


def _of_stat(found: os.stat_result) -> dict[str, Any]:
    return {
        "type": _type_name(found.st_mode),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "inode": found.st_ino,
        "links": found.st_nlink,
        "size": found.st_size,
        "blocks": found.st_blocks,
        "atime": _time(found.st_atime_ns),
        "mtime": _time(found.st_mtime_ns),
        "ctime": _time(found.st_ctime_ns),
    }


def _kernel(path: Path, found: os.stat_result) -> dict[str, Any]:
    """What the kernel's own cache for the mount holds of a file: nothing if it would not tell.

    It tells who owns the file or may write it. To others mincore(2) says that all is in memory.
    """
    from mapfs.store.machine_pages import PAGE_BYTES
    from mapfs.store.syscalls import PageCache

    if os.geteuid() not in (0, found.st_uid) and not os.access(path, os.W_OK, effective_ids=True):
        return {}
    pages = -(-found.st_size // PAGE_BYTES)
    with path.open("rb") as file:
        try:
            cached = PageCache(file.fileno()).statistics(0, pages * PAGE_BYTES)
        except PermissionError:
            return {}
    values = {"resident": cached.resident * PAGE_BYTES}
    if cached.dirty is not None:
        values["dirty"] = cached.dirty * PAGE_BYTES
    return {"kernel": values}


def _extents(path: Path) -> list[dict[str, int]]:
    from mapfs.mapping.opening import layout_of

    with path.open("rb") as file:
        return [piece._asdict() for piece in layout_of(file.fileno()).pieces]


def _attributes(path: Path, group: str) -> dict[str, int] | None:
    try:
        value = os.getxattr(path, f"user.mapfs.{group}.json", follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
    loaded: dict[str, int] = json.loads(value)
    return loaded


def _type_name(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return kinds[stat.S_IFMT(mode)]


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _as_text(described: dict[str, Any]) -> str:
    lines = [printable(str(described["path"]))]
    for key, value in described.items():
        if isinstance(value, list):
            lines += [_line("extent", _extent_as_text(extent)) for extent in value]
        elif isinstance(value, dict):
            lines += [_line(f"{key}.{name}", number) for name, number in value.items()]
        elif key != "path":
            lines.append(_line(key, value))
    return "\n".join(lines)


def _line(name: str, value: object) -> str:
    return f"  {name:<{_NAME_WIDTH}} {value}"


def _extent_as_text(extent: dict[str, int]) -> str:
    offset, store_offset, length = extent.values()
    return f"{offset}: {length} bytes at {store_offset} of the store"
