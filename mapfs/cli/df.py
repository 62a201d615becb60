"""mapfs df: where the bytes of stores go."""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from mapfs.cli.completion import places
from mapfs.cli.terminal import complain, console
from mapfs.errors import MapfsError
from mapfs.names import printable

_ROWS = {
    "stored": "stored_bytes",
    "slack: tails": "slack_tail_bytes",
    "slack: preallocated": "slack_prealloc_bytes",
    "metadata": "metadata_bytes",
    "free": "free_bytes",
    "store": "store_bytes",
    "may grow to": "limit_bytes",
    "catalog (beside it)": "catalog_bytes",
}

# Of the process that answers, and not of the store.
_OF_THE_PROCESS: Final = ("address_space_bytes", "windows", "mappings", "page_table_bytes")


@click.command("df", short_help="Print where the bytes of a store go, mounted or not.")
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(readable=False, path_type=Path),
    metavar="[MNT|STORE]...",
    shell_complete=places,
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object a store.")
def command(*, paths: tuple[Path, ...], as_json: bool) -> int:
    """Print stored bytes, slack by cause, metadata and free space, mounted or not.

    Without a path: every mapfs that is mounted. Exit code 1 if one could not be looked at.

    \b
    mapfs df mnt
    mapfs df data.mapfs --json
    """
    from mapfs.mounts import mapfs_mounts

    described, failed = [], False
    for path in paths or tuple(mount.mountpoint for mount in mapfs_mounts()):
        try:
            described.append({"path": os.fspath(path), **usage(path)})
        except (OSError, MapfsError) as error:
            reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            complain(reason)
            failed = True
    if as_json and (described or not failed):
        click.echo(json.dumps(described, indent=2))
    elif not as_json:
        for each in described:
            _print_table(each)
    return int(failed)


def usage(path: Path) -> dict[str, int | str]:
    """The `user.mapfs.fs` values of a mount, or of a store, mounted or not."""
    from mapfs.mounts import mount_of_store

    mount = mount_of_store(path)
    live = _live_usage(mount.mountpoint if mount else path)
    values = live if live is not None else _usage_at_rest(path)
    return {key: value for key, value in values.items() if key not in _OF_THE_PROCESS}


def _live_usage(mountpoint: Path) -> dict[str, int | str] | None:
    try:
        value = os.getxattr(mountpoint, "user.mapfs.fs.json")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
    values: dict[str, int | str] = json.loads(value)
    return values


def _usage_at_rest(store: Path) -> dict[str, int | str]:
    from mapfs.filesystem.filesystem import Filesystem
    from mapfs.format.records import ROOT_INODE
    from mapfs.store.opening import open_store

    if not store.is_dir():
        raise MapfsError(f"{store}: neither a mapfs mount nor a store")
    with contextlib.closing(Filesystem(open_store(store, read_only=True))) as filesystem:
        values: dict[str, int | str] = json.loads(
            filesystem.getxattr(ROOT_INODE, b"user.mapfs.fs.json")
        )
        return values


def _print_table(described: Mapping[str, object]) -> None:
    from rich.table import Table

    from mapfs.sizes import format_size

    click.echo(printable(str(described["path"])))
    table = Table(box=None)
    table.add_column("")
    table.add_column("size", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("of store", justify="right")
    store_bytes = int(str(described["store_bytes"]))
    for label, key in _ROWS.items():
        value = int(str(described[key]))
        share = f"{100 * value / store_bytes:.1f} %" if key in _PARTS else ""
        table.add_row(label, format_size(value), str(value), share)
    console().print(table)
    if described["state"] != "ok":
        click.echo(f" state: {described['state']}")


# What adds up to the size of the store.
_PARTS = frozenset(
    {"stored_bytes", "slack_tail_bytes", "slack_prealloc_bytes", "metadata_bytes", "free_bytes"}
)
