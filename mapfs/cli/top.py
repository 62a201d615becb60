"""mapfs top: what a live mount does, again and again or once."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mapfs.cli.parameters import MOUNTPOINT
from mapfs.cli.terminal import complain, console
from mapfs.errors import MapfsError, UsageError

if TYPE_CHECKING:
    from mapfs.cli.client import ControlClient

_FILES: Final = 30


@click.command("top", short_help="Watch a live mount: rates, latencies, slack, files.")
@MOUNTPOINT
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    help="Seconds between two looks (default: 1).",
)
@click.option("--once", is_flag=True, help="Print one interval as a table, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print a JSON object.")
def command(*, mountpoint: Path, interval: float, once: bool, as_json: bool) -> int:
    """Show what the mount MNT does: rates, latencies, slack, files, and what mapping costs.

    Keys: q or Ctrl-C ends, p pauses; r, e, l and a, s, k, m, d sort operations and files.

    \b
    mapfs top mnt
    mapfs top mnt --once --json | jq .operations
    """
    from mapfs.cli.client import ControlClient

    if as_json and not once:
        raise UsageError("--json needs --once")
    client = ControlClient(mountpoint)
    if not once:
        return _watch(client, interval)
    _print_once(client, interval, as_json=as_json)
    return 0


def _print_once(client: "ControlClient", interval: float, *, as_json: bool) -> None:
    import json

    from mapfs.monitor.rates import rates_between

    before = client.snapshot()
    time.sleep(interval)
    rates = rates_between(before, client.snapshot(_FILES))
    if as_json:
        click.echo(json.dumps(rates.as_json(), indent=2))
    else:
        from mapfs.monitor.tables import print_rates

        print_rates(console(), rates)


def _watch(client: "ControlClient", interval: float) -> int:
    try:
        from mapfs.monitor.screen import Top
    except ModuleNotFoundError as error:
        raise MapfsError(
            f"the screen needs {error.name}: pip install 'mapfs[top]', or use --once"
        ) from None
    if not sys.stdout.isatty():
        raise UsageError("the screen needs a terminal; use --once")
    top = Top(str(client.mountpoint), lambda: client.snapshot(_FILES), interval)
    reason = top.run()
    if reason is not None:
        complain(reason)
    return top.return_code or 0
