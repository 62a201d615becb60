"""mapfs trace: the operations of a live mount as they happen."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import click

from mapfs.cli.completion import some_of
from mapfs.cli.parameters import MOUNTPOINT
from mapfs.cli.terminal import complain
from mapfs.errors import MountGoneError


def _operations() -> Iterable[str]:
    from mapfs.fuse.wire.protocol import OPERATIONS

    return sorted(OPERATIONS)


@click.command("trace", short_help="Print the operations of a live mount as they happen.")
@MOUNTPOINT
@click.option(
    "--op",
    "names",
    metavar="NAMES",
    help="Only these operations, with commas between.",
    shell_complete=some_of(_operations),
)
@click.option("--path", "pattern", metavar="GLOB", help="Only paths from the root that match.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many operations.")
def command(
    *,
    mountpoint: Path,
    names: str | None,
    pattern: str | None,
    as_json: bool,
    limit: int | None,
) -> None:
    """Print each operation that the daemon of the mount MNT answers, until it is unmounted.

    The kernel answers most reads and lookups from its caches: those do not appear.

    \b
    mapfs trace mnt
    mapfs trace mnt --op read,write --path 'logs/*'
    mapfs trace mnt --json --limit 1000 | jq -r .path | sort | uniq -c
    """
    from mapfs.cli.client import ControlClient

    wanted = None if names is None else [name.strip().lower() for name in names.split(",")]
    number = count(1)
    try:
        for event in ControlClient(mountpoint).trace(operations=wanted, path=pattern):
            if not event:
                complain(f"{mountpoint}: another process serves it now")
            elif as_json:
                click.echo(json.dumps(event))
            elif "dropped" in event:
                complain(f"{event['dropped']} operations came too fast")
            else:
                click.echo(_as_text(event))
            if "operation" in event and next(number) == limit:
                return
    except MountGoneError as error:
        complain(str(error))


def _as_text(event: dict[str, Any]) -> str:
    """`03:20:41.634123 write        d/file 0+4096 ok 45 µs`."""
    from mapfs.monitor.tables import format_seconds, path_label

    when = datetime.fromtimestamp(event["time"], UTC).astimezone()
    words = [f"{when:%H:%M:%S.%f}", f"{event['operation']:<12}"]
    words.append(path_label(event["path"], event["inode"]))
    if event["offset"] is not None:
        size = "" if event["size"] is None else f"+{event['size']}"
        words.append(f"{event['offset']}{size}")
    words.append(event["error"] or "ok")
    words.append(format_seconds(event["duration_seconds"]))
    return " ".join(words)
