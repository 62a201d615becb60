"""mapfs metrics: the statistics of a live mount as Prometheus reads them."""

import os
from pathlib import Path

import click

from mapfs.cli.parameters import MOUNTPOINT


@click.command("metrics", short_help="Print the metrics of a live mount for Prometheus.")
@MOUNTPOINT
def command(*, mountpoint: Path) -> None:
    """Print the metrics of the mount MNT in the text format of Prometheus.

    `mapfs mount --metrics` serves the same over HTTP.

    \b
    mapfs metrics mnt
    mapfs metrics mnt > /var/lib/node_exporter/mapfs.prom
    """
    from mapfs.cli.client import ControlClient
    from mapfs.fuse.metrics import exposition

    client = ControlClient(mountpoint)
    text = exposition(client.snapshot(), os.fspath(client.mount.mountpoint))
    click.echo(text.decode(), nl=False)
