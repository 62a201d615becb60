"""mapfs control: ask the daemon of a live mount for what the filesystem's calls do not carry."""

import os
from pathlib import Path

import click

from mapfs.cli.parameters import MOUNTPOINT
from mapfs.cli.terminal import console
from mapfs.errors import MapfsError


@click.group("control", subcommand_metavar="COMMAND [ARGUMENT]...")
@MOUNTPOINT
@click.pass_context
def command(context: click.Context, *, mountpoint: Path) -> None:
    """Ask the daemon that serves MNT, over its control socket.

    Only root and the user who mounted it may.

    \b
    mapfs control mnt sync
    mapfs control mnt punch data.db 0 1048576
    mapfs control mnt statistics --json | jq .operations.read
    """
    context.obj = mountpoint


@command.command("sync")
@click.pass_obj
def sync(mountpoint: Path) -> None:
    """Have everything written and committed now.

    \b
    mapfs control mnt sync
    """
    from mapfs.cli.client import ControlClient

    ControlClient(mountpoint).ask("sync")


@command.command("punch", short_help="Make a hole in a file.")
@click.argument("path")
@click.argument("offset", type=click.IntRange(min=0))
@click.argument("length", type=click.IntRange(min=1))
@click.pass_obj
def punch(mountpoint: Path, *, path: str, offset: int, length: int) -> None:
    """Make a hole of LENGTH bytes at OFFSET of the file PATH, and say what that freed.

    Its pages go back to the host; pages that are covered in part are filled with zeros there.

    \b
    mapfs control mnt punch data.db 0 1048576
    """
    from mapfs.cli.client import ControlClient

    client = ControlClient(mountpoint)
    inode = inode_of(client.mount.mountpoint, path)
    answer = client.ask("punch", inode=inode, offset=offset, length=length)
    click.echo(f"freed {answer['freed_bytes']} bytes")


@command.command("invalidate", short_help="Drop what the kernel caches of a file, or of all.")
@click.argument("path", required=False)
@click.pass_obj
def invalidate(mountpoint: Path, *, path: str | None) -> None:
    """Let the kernel drop what it caches of the file PATH, or of the whole mount.

    What it has yet to write it writes first.

    \b
    mapfs control mnt invalidate data.db
    """
    from mapfs.cli.client import ControlClient

    client = ControlClient(mountpoint)
    if path is None:
        client.ask("invalidate")
    else:
        client.ask("invalidate", inode=inode_of(client.mount.mountpoint, path))


@command.command("statistics", short_help="Print what the mount has done, and what it holds.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def statistics(mountpoint: Path, *, as_json: bool) -> None:
    """Print what the mount has done since its process began, and what it holds.

    \b
    mapfs control mnt statistics --json
    """
    import json

    from mapfs.cli.client import ControlClient

    snapshot = ControlClient(mountpoint).snapshot(files=10)
    if as_json:
        click.echo(json.dumps(snapshot.as_json(), indent=2))
    else:
        from mapfs.monitor.tables import print_snapshot

        print_snapshot(console(), snapshot)


def inode_of(mountpoint: Path, path: str) -> int:
    """The inode of a file that is named as the shell does, or from the root of the mount.

    Raises `MapfsError` if it is not on the mount.
    """
    root = mountpoint.stat()
    for candidate in (path, os.path.join(mountpoint, path.lstrip("/"))):  # noqa: PTH118
        try:
            found = os.stat(candidate)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            continue
        if found.st_dev == root.st_dev:
            return found.st_ino
    raise MapfsError(f"{path}: no such file on {mountpoint}")
