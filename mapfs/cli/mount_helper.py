"""What mount(8) runs for `mount -t fuse.mapfs STORE MNT` and for a line in /etc/fstab.

mount(8) finds it as /sbin/mount.fuse.mapfs if a link is there; otherwise mount.fuse3(8) runs
`mapfs STORE MNT -o OPTIONS`, which means the same.
"""

import sys
from pathlib import Path

import click

from mapfs.cli import run
from mapfs.cli.mount import mount_store


@click.command("mount.fuse.mapfs")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="The usual comma list.")
@click.option("-t", "kind", help="The filesystem type, which mount(8) may repeat.")
@click.option("-s", "sloppy", is_flag=True, help="Ignored.")
@click.option("-f", "fake", is_flag=True, help="Do everything but mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Ignored.")
@click.option("-v", "verbose", is_flag=True, help="Ignored.")
def command(
    *,
    store: Path,
    mountpoint: Path,
    options: tuple[str, ...],
    kind: str | None,
    sloppy: bool,
    fake: bool,
    no_mtab: bool,
    verbose: bool,
) -> None:
    """Mount a store as mount(8) asks for it.

    \b
    mount -t fuse.mapfs /srv/data.mapfs /data -o allow_other
    """
    del kind, sloppy, no_mtab, verbose
    if not fake:
        mount_store(store, mountpoint, ",".join(options))


def main() -> None:
    """The entry point."""
    sys.exit(run(command, sys.argv[1:]))
