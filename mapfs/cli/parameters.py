"""Command-line arguments that several verbs take, and their types."""

from pathlib import Path

import click

from mapfs.cli.completion import mounts
from mapfs.sizes import parse_size


class SizeType(click.ParamType[int]):
    """A size: `4096`, `512M`, `10G`."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes; fails with click's usage error."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = SizeType()
# The live mount that a verb asks.
MOUNTPOINT = click.argument(
    "mountpoint", type=click.Path(path_type=Path), metavar="MNT", shell_complete=mounts
)
