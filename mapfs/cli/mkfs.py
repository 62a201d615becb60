"""mapfs mkfs: make a store."""

from pathlib import Path

import click

from mapfs.cli.completion import one_of
from mapfs.cli.parameters import SIZE
from mapfs.format.totals import WHAT_IF_SIZES
from mapfs.names import printable


@click.command("mkfs")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--size", type=SIZE, help="The most it may grow to (default: what the host has free)."
)
@click.option(
    "--page-size",
    type=SIZE,
    help="Bytes in a page (default: the machine's).",
    shell_complete=one_of(lambda: WHAT_IF_SIZES),
)
@click.option(
    "--backing",
    type=click.Path(path_type=Path),
    help="Where to put the store file: a block device, or any file.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing store, or what --backing holds.")
def command(
    *, store: Path, size: int | None, page_size: int | None, backing: Path | None, force: bool
) -> None:
    """Make the store STORE, a directory `NAME.mapfs`.

    \b
    mapfs mkfs data.mapfs --size 10G
    mapfs mkfs fast.mapfs --backing /dev/shm/fast --size 2G
    mapfs mkfs disk.mapfs --backing /dev/vdb
    """
    from mapfs.sizes import format_size
    from mapfs.store.mkfs import StoreOptions, create_store, default_limit, machine_page_size

    options = StoreOptions(
        limit=default_limit(backing or store) if size is None else size,
        page_size=machine_page_size() if page_size is None else page_size,
    )
    create_store(store, options, backing=backing, force=force)
    most, page = format_size(options.limit), format_size(options.page_size)
    click.echo(f"{printable(str(store))}: up to {most}, pages of {page}")
